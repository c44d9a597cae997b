package cli

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sendgate/sendgate/internal/capacity"
)

// planRows prints a row for each plan.
func planRows(w io.Writer, plans []capacity.Plan) {
	head(w, "A MONTH", "PEAK", "CORES", "MEMORY", "DISK", "WAL A DAY", "CONNECTIONS", "MACHINES", "PROVIDERS", "LIMITS BELOW THE PEAK")
	for _, p := range plans {
		h := p.Hardware
		row(w, amount(p.Load.PerMonth), rate(p.Busiest), number(h.Cores), gigabytes(h.GatewayGB+h.PostgresGB), gigabytes(h.DiskGB),
			gigabytes(h.LogPerDayGB), strconv.Itoa(h.Connections), machineCost(h), providerCost(p), orDash(strings.Join(belowPeak(p), ", ")))
	}
}

// belowPeak names the accounts with a limit that binds.
func belowPeak(p capacity.Plan) []string {
	var names []string
	for _, a := range p.Accounts {
		if len(a.Limits) > 0 && a.Limits[0].Verdict != capacity.Fits {
			names = append(names, a.Name)
		}
	}
	return names
}

// machineCost is the price of one machine for everything, or else of several.
func machineCost(h capacity.Hardware) string {
	machines := h.Alone
	if len(machines) == 0 {
		machines = h.Apart
	}
	sum := 0.0
	for _, m := range machines {
		if m.Size == "" {
			return "not known"
		}
		sum += m.Price
	}
	return dollars(sum)
}

// providerCost is what the accounts cost together, as far as it is known.
func providerCost(p capacity.Plan) string {
	sum, most, unknown := 0.0, "", 0
	for _, a := range p.Accounts {
		switch {
		case a.Price != nil:
			sum += a.Price.Dollars
			if a.Price.AtMost {
				most = "at most "
			}
		case a.Share > 0:
			unknown++
		}
	}
	if unknown == 0 {
		return most + dollars(sum)
	}
	return fmt.Sprintf("%s%s, and %d not known", most, dollars(sum), unknown)
}

// showPlan prints one plan.
func showPlan(w io.Writer, p capacity.Plan) {
	l, h := p.Load, p.Hardware
	row(w, "messages", fmt.Sprintf("%s a month: %s on average, %s in the busiest hour", amount(l.PerMonth), rate(p.Average), rate(p.Busiest)))
	row(w, "cores", fmt.Sprintf("%s: in the busiest hour sendgate uses %s and Postgres %s", number(h.Cores), digits(h.GatewayBusy), digits(h.PostgresBusy)))
	row(w, "memory", fmt.Sprintf("%s: sendgate %s, Postgres %s", gigabytes(h.GatewayGB+h.PostgresGB), gigabytes(h.GatewayGB), gigabytes(h.PostgresGB)))
	row(w, "disk", gigabytes(h.DiskGB)+" with room to spare")
	row(w, "", "of it bodies of "+days(l.BodyRetention)+": "+gigabytes(h.BodiesGB))
	row(w, "", "of it messages and events of "+days(l.Retention)+": "+gigabytes(h.RowsGB))
	row(w, "WAL", gigabytes(h.LogPerDayGB)+" a day")
	row(w, "replicas", fmt.Sprintf("%d for the load, one more so that one may fail", h.Replicas))
	row(w, "connections", fmt.Sprintf("%d of Postgres, %d with one more replica", h.Connections, h.OneMore))
	for _, m := range h.Alone {
		row(w, "one machine", machineText(m))
	}
	for _, m := range h.Apart {
		row(w, "or for "+m.For, machineText(m))
	}
	fmt.Fprintln(w)
	row(w, "ACCOUNT", "SHARE", "CARRIES", "LIMIT", "NEEDS", "AT THE PEAK")
	for _, a := range p.Accounts {
		limitRows(w, a)
	}
	bindingRows(w, p.Pool)
	fmt.Fprintln(w)
	row(w, "ACCOUNT", "RECIPIENTS", "PLAN", "A MONTH", "PRICE OF")
	for _, a := range p.Accounts {
		if a.Share > 0 {
			priceRow(w, a, l.Recipients)
		}
	}
	row(w, "all", amount(l.PerMonth*l.Recipients), "", providerCost(p))
	fmt.Fprintln(w)
	row(w, fmt.Sprintf("Costs of a message: %s, %s, %s.", p.Costs.How, p.Costs.Machine, p.Costs.Date))
	for _, s := range h.Prices {
		row(w, fmt.Sprintf("Prices of %s: %s, %s.", s.What, s.URL, s.Date))
	}
	var seen []string
	for _, a := range p.Accounts {
		if pr := a.Price; pr != nil && !slices.Contains(seen, a.Kind) {
			seen = append(seen, a.Kind)
			row(w, fmt.Sprintf("Price of %s: %s, %s.", a.Kind, pr.Source, pr.Date))
			if pr.Note != "" {
				row(w, "  "+pr.Note)
			}
		}
	}
}

// limitRows prints a line for each limit of an account, the one that binds first at the top.
func limitRows(w io.Writer, a capacity.AccountShare) {
	head := []string{a.Name, strconv.FormatFloat(100*a.Share, 'f', 1, 64) + "%", amountOr(a.Carries, "no limit")}
	if a.NoMail != "" {
		row(w, a.Name, "0%", "no mail: "+a.NoMail)
		return
	}
	if len(a.Limits) == 0 {
		row(w, head...)
	}
	for _, l := range a.Limits {
		verdict := string(l.Verdict)
		if l.Verdict == capacity.Waits {
			verdict += " up to " + roughly(time.Duration(l.Wait))
		}
		row(w, append(head, fmt.Sprintf("%s %s per %s", amount(float64(l.N)), l.Unit, shortDuration(time.Duration(l.Per))), amount(l.Needs), verdict)...)
		head = []string{"", "", ""}
	}
}

// bindingRows say where the first limit binds, and what follows.
func bindingRows(w io.Writer, p capacity.Pool) {
	switch {
	case !p.Mail:
		row(w, "No account takes this mail.")
		return
	case p.First == "":
		row(w, "No account has a limit.")
		return
	}
	row(w, fmt.Sprintf("The limit of %s binds first, at %s messages a month.", p.First, amount(p.Binds)))
	if p.Carries > 0 && p.Carries < 1.001*p.Binds { // nobody else takes its mail
		row(w, "Its mail then waits.")
		return
	}
	row(w, fmt.Sprintf("Other accounts then take its mail, up to %s in all.", amountOr(p.Carries, "any amount")))
}

func priceRow(w io.Writer, a capacity.AccountShare, recipients float64) {
	plan, cost, date := "not known", "-", "-"
	if p := a.Price; p != nil {
		plan, cost, date = p.Plan, dollars(p.Dollars), p.Date
		if p.AtMost {
			cost = "at most " + cost
		}
	}
	row(w, a.Name, amount(a.PerMonth*recipients), plan, cost, date)
}

func machineText(m capacity.Machine) string {
	if m.Size == "" {
		return fmt.Sprintf("%d, larger than the table of prices knows", m.Count)
	}
	text := fmt.Sprintf("%d of %s", m.Count, m.Size)
	if m.Volume > 0 {
		text += fmt.Sprintf(" and a volume of %s", gigabytes(m.Volume))
	}
	return text + ": " + dollars(m.Price) + " a month"
}

// amount shortens a number to three digits: 1.23M.
func amount(n float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if n >= 0.9995*unit.of {
			return digits(n/unit.of) + unit.name
		}
	}
	return digits(n)
}

func amountOr(n float64, none string) string {
	if n == 0 {
		return none
	}
	return amount(n)
}

// digits keeps three of them, and never an exponent.
func digits(n float64) string {
	if n > 0 && n < 0.01 {
		return "<0.01"
	}
	decimals := 2 - int(math.Floor(math.Log10(max(n, 0.01))+1e-9))
	text := strconv.FormatFloat(n, 'f', min(max(decimals, 0), 2), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func rate(perSecond float64) string {
	if perSecond < 0.01 {
		return amount(perSecond*3600) + "/h"
	}
	return amount(perSecond) + "/s"
}

func gigabytes(n float64) string {
	switch {
	case n >= 999.5:
		return digits(n/1000) + " TB"
	case n < 0.9995:
		return digits(n*1000) + " MB"
	}
	return digits(n) + " GB"
}

func dollars(n float64) string {
	if n >= 100 {
		return "$" + strconv.FormatFloat(n, 'f', 0, 64)
	}
	return "$" + strings.TrimSuffix(strconv.FormatFloat(n, 'f', 2, 64), ".00")
}

func days(s capacity.Span) string { return digits(time.Duration(s).Hours()/24) + " days" }

// roughly rounds a wait up: to seconds, minutes or hours.
func roughly(d time.Duration) string {
	step := time.Second
	switch {
	case d >= 10*time.Hour:
		step = time.Hour
	case d >= 10*time.Minute:
		step = time.Minute
	}
	return shortDuration((d + step - 1).Truncate(step))
}
