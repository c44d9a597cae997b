package cli

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sendgate/sendgate/internal/capacity"
	"github.com/sendgate/sendgate/internal/config"
)

// planOf runs plan --json and reads its answer.
func planOf(t *testing.T, w *world, args ...string) capacity.Plan {
	t.Helper()
	o := w.run(append([]string{"plan", "--json"}, args...)...)
	var p capacity.Plan
	if err := json.Unmarshal([]byte(o.out), &p); err != nil || o.code != 0 {
		t.Fatalf("%v: code %d, %v\n%s%s", args, o.code, err, o.out, o.err)
	}
	return p
}

func TestPlanReadsAmountsWithUnits(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	for text, want := range map[string]float64{"1": 1, "10000": 10_000, "500k": 500_000, "500K": 500_000, "1.5M": 1_500_000, "2 m": 2_000_000, "1g": 1e9} {
		if got := planOf(t, w, "--offline", "--per-month", text).Load.PerMonth; got != want {
			t.Errorf("--per-month %s is %g, want %g", text, got, want)
		}
	}
	p := planOf(t, w, "--offline", "--per-month", "1k", "--peak", "3", "--size", "512KiB", "--bulk", "12.5%", "--recipients", "2.5").Load
	if p.Peak != 3 || p.Size != 512<<10 || p.Bulk != 0.125 || p.Recipients != 2.5 {
		t.Errorf("the other flags are read as %+v", p)
	}
}

func TestPlanRefusesAbsurdInput(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	for _, tc := range []struct{ args, want string }{
		{"", "--per-month"},
		{"--per-month=", "--per-month"},
		{"--per-month=lots", `--per-month: want messages such as 10000, 500k or 1M, got "lots"`},
		{"--per-month=-5", "--per-month: want messages"},
		{"--per-month=0", "--per-month must be 1 to 10000M"},
		{"--per-month=20g", "--per-month must be 1 to 10000M"},
		{"--per-month=999999999999999g", "--per-month must be 1 to 10000M"},
		{"--per-month=1e9", "--per-month: want messages"},
		{"--per-month=0x10", "--per-month: want messages"},
		{"--per-month=NaN", "--per-month: want messages"},
		{"--per-month=1kB", "--per-month: want messages"},
		{"--per-month=1k --peak=0.5x", "--peak must be 1x to 720x"},
		{"--per-month=1k --peak=10y", `--peak: want a multiple such as 10x, got "10y"`},
		{"--per-month=1k --size=1GB", "--size: want a size such as 30kB"},
		{"--per-month=1k --size=31MB", "--size must be 200B to 30MB"},
		{"--per-month=1k --recipients=NaN", "--recipients must be 1 to 1000"},
		{"--per-month=1k --recipients=0", "--recipients must be 1 to 1000"},
		{"--per-month=1k --bulk=0.8", "--bulk: want a share such as 80%"},
		{"--per-month=1k --bulk=101%", "--bulk must be 0% to 100%"},
		{"--per-month=1k --retention=forever", "--retention: want a time such as 168h or 7d"},
		{"--per-month=1k --retention=24h", "--body-retention must be"},
		{"--per-month=1k pigeon=1", "want each kind once"},
		{"--per-month=1k ses=1 ses=2", "want each kind once"},
		{"--per-month=1k ses=lots", "want ACCOUNT=WEIGHT"},
		{"--per-month=" + strings.Repeat("1k,", 50) + "1k", "want 1 to 50 amounts"},
	} {
		w.run(append([]string{"plan", "--offline"}, strings.Fields(tc.args)...)...).want(t, 2, "", tc.want)
	}
}

func TestPlanIsReadableOnANarrowTerminal(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	o := w.run("plan", "--per-month", "30M", "--offline")
	o.want(t, 0, "The limit of sendgrid binds first, at 423k messages a month.", "")
	for _, line := range strings.Split(o.out, "\n") {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	w.run("plan", "--per-month", "1M", "smtp=1").want(t, 0, "not known", "")
	w.run("plan", "--per-month", "1M", "ses=0").want(t, 0, "No account takes this mail.", "")
}

func TestPlanTakesTheAccountsOfTheServer(t *testing.T) {
	t.Parallel()
	accounts := `{"data":[
		{"name":"eu","kind":"ses","state":"active","settings":{},"capabilities":{"max_recipients":50},"limits":[{"n":10,"per":"1s","unit":"requests"}]},
		{"name":"pm","kind":"postmark","state":"active","settings":{"batch_size":10},"capabilities":{},"limits":[{"n":1000,"per":"1h","unit":"requests"}]},
		{"name":"off","kind":"mailgun","state":"paused","settings":{},"capabilities":{},"limits":[]},
		{"name":"new","kind":"pigeon","state":"active","settings":{},"capabilities":{},"limits":[]},
		{"name":"elsewhere","kind":"ses","state":"active","settings":{},"capabilities":{},"limits":[]}]}`
	pool := `{"name":"bulk","overflow":"wait","accounts":[{"account":"eu","weight":1},{"account":"pm","weight":2},{"account":"off","weight":5},{"account":"new","weight":1}]}`
	w := newWorld(t, map[string]answer{"GET /admin/v1/accounts": {status: 200, body: accounts}, "GET /admin/v1/pools/bulk": {status: 200, body: pool}})
	p := planOf(t, w, "--per-month", "1M", "--pool", "bulk")
	shares := map[string]float64{}
	for _, a := range p.Accounts {
		shares[a.Name] = a.Share
	}
	if diff := cmp.Diff(map[string]float64{"eu": .25, "pm": .5, "off": 0, "new": .25}, shares); diff != "" {
		t.Errorf("shares (-want +got):\n%s", diff)
	}
	if p.Pool.Spill || p.Pool.First != "pm" {
		t.Errorf("pool %+v, want one that waits, for pm", p.Pool)
	}
	if got, want := p.Accounts[1].Carries, .98*1000*10*72.; got < .999*want || got > 1.001*want {
		t.Errorf("pm carries %g a month, want %g: 10 messages in a request", got, want)
	}
	w.run("plan", "--per-month", "1M", "--pool", "none").want(t, 1, "", "nothing at this path")
	calls := len(w.calls)
	w.run("plan", "--per-month", "1M", "--offline").want(t, 0, "sendgrid", "")
	w.run("plan", "--per-month", "1M", "ses=1").want(t, 0, "ses", "")
	if len(w.calls) != calls {
		t.Error("a plan that names its accounts asked the server")
	}
}

func TestPlanWorksWithoutAServer(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: t.TempDir()}
	w.run("plan", "--per-month", "1M").want(t, 0, "mailgun", "documented limits")
	w.env = []string{"SENDGATE_URL=http://127.0.0.1:1", "SENDGATE_API_KEY=k"}
	w.run("plan", "--per-month", "1M").want(t, 0, "mailgun", "documented limits")
	w.env = []string{"SENDGATE_URL=http://127.0.0.1:1", "SENDGATE_ADMIN_KEY=k"} // nobody listens: that is no reason to show other limits
	w.run("plan", "--per-month", "1M").want(t, 1, "", "127.0.0.1:1")
	w.env = []string{"SENDGATE_URL=http://mail.example.com", "SENDGATE_ADMIN_KEY=k"} // a key does not go there
	w.run("plan", "--per-month", "1M").want(t, 1, "", "without TLS")
}

// The defaults of the plan are those of the server.
func TestPlanKnowsTheDefaultsOfTheServer(t *testing.T) {
	t.Parallel()
	defaults := map[string]string{}
	for f := range fieldsOf(reflect.TypeFor[config.Config]()) {
		defaults[f.Tag.Get("env")] = f.Tag.Get("envDefault")
	}
	p := planOf(t, &world{t: t, dir: t.TempDir()}, "--offline", "--per-month", "1k")
	cmd := reflect.TypeFor[planCmd]()
	for field, setting := range map[string]string{"Retention": "RETENTION", "BodyRetention": "BODY_RETENTION"} {
		f, _ := cmd.FieldByName(field)
		got, err := time.ParseDuration(f.Tag.Get("default"))
		want, _ := time.ParseDuration(defaults[setting])
		if err != nil || got != want {
			t.Errorf("%s is %s, and the server's %s is %s", field, got, setting, want)
		}
	}
	if got := p.Hardware.OneMore - p.Hardware.Connections; defaults["DATABASE_CONNECTIONS"] != "18" || got != 18 {
		t.Errorf("a replica has %d connections in a plan, and %s in the settings", got, defaults["DATABASE_CONNECTIONS"])
	}
}

// TestReadmeShowsThePlans compares the README's table of capacities with what the command says.
func TestReadmeShowsThePlans(t *testing.T) {
	t.Parallel()
	const command = "plan --offline --per-month 10k,100k,1M,10M,100M"
	readme := strings.Join(readLines(t, root+"README.md"), "\n")
	_, below, ok := strings.Cut(readme, "sendgate "+command+"\n```\n\n")
	if !ok {
		t.Fatalf("README does not show sendgate %s, with its table below", command)
	}
	table, _, _ := strings.Cut(below, "\n\n")
	w := &world{t: t, dir: t.TempDir()}
	var want []string
	for i, line := range strings.Split(strings.TrimSpace(w.run(strings.Fields(command)...).out), "\n") {
		cells := regexp.MustCompile(` {2,}`).Split(strings.TrimSpace(line), -1)
		if i == 0 {
			for n, c := range cells {
				cells[n] = strings.ReplaceAll(strings.ToLower(c), "wal", "WAL")
			}
		}
		want = append(want, "| "+strings.Join(cells, " | ")+" |")
		if i == 0 {
			want = append(want, strings.Repeat("|---", len(cells))+"|")
		}
	}
	if diff := cmp.Diff(strings.Join(want, "\n"), table); diff != "" {
		t.Errorf("README (-sendgate plan +README)\n%s", diff)
	}
}
