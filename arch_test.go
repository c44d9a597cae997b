package sendgate_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sendgate/sendgate/internal/provider/catalog"
)

const module = "github.com/sendgate/sendgate"

// rule says what a package may import of ours, and why not more.
type rule struct {
	may []string
	why string
}

// vocabulary are the packages that every part of the program may import: types and arithmetic without I/O.
var vocabulary = []string{
	"internal/mail", "internal/queue", "internal/record", "internal/provider", "internal/limit", "internal/route", "internal/seal",
	"internal/incident",
}

// espRule is the rule of every adapter.
var espRule = rule{
	[]string{
		"internal/mail", "internal/provider", "internal/provider/esphttp", "internal/provider/eventjson", "internal/provider/mime",
		"internal/provider/smtpcode", "internal/seal",
	},
	"an adapter knows its own provider and the seam: two adapters that share code drift into one provider's habits",
}

// emulatedRule is the rule of every emulated provider.
var emulatedRule = rule{
	[]string{"internal/emulator", "internal/limit"},
	"an emulated provider is written from the documentation of its own: not from an adapter, and not from another provider's",
}

// kinds are the providers of the catalog: each has an adapter and an emulator, which know nothing of each other or of other kinds.
var kinds = func() []string {
	var names []string
	for _, s := range catalog.Specs() {
		names = append(names, string(s.Kind))
	}
	return names
}()

func below(folder string, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = folder + name
	}
	return out
}

// withKinds adds the default rules of each kind that has no own rules.
func withKinds(rules map[string]rule) map[string]rule {
	for folder, common := range map[string]rule{"internal/provider/": espRule, "internal/emulator/": emulatedRule} {
		for _, name := range below(folder, kinds) {
			if _, own := rules[name]; !own {
				rules[name] = common
			}
		}
	}
	return rules
}

// rules has a line for each package. Imports that are not listed are forbidden. A package without a line is an error.
var rules = withKinds(map[string]rule{
	"":                               {nil, "the root holds tests of the tree only"},
	"api":                            {nil, "callers get the wire types and the client without our insides"},
	"migrations":                     {nil, "the schema depends on nothing"},
	"internal/mail":                  {nil, "the words depend on nothing, so that everything can speak them"},
	"internal/limit":                 {nil, "the arithmetic is pure"},
	"internal/seal":                  {nil, "a secret is usable everywhere, so it drags nothing along"},
	"internal/devpg":                 {nil, "it runs a server and knows no schema and no mail"},
	"internal/queue":                 {[]string{"internal/mail"}, "what waits is words too"},
	"internal/record":                {[]string{"internal/mail", "internal/queue"}, "what is kept is words too"},
	"internal/provider":              {[]string{"internal/mail"}, "the seam speaks of mail and knows no provider"},
	"internal/provider/smtpcode":     {[]string{"internal/mail"}, "replies of SMTP servers read alike whoever passes them on"},
	"internal/jail":                  {nil, "a cage for addresses that strangers choose needs none of ours"},
	"internal/unsub":                 {[]string{"internal/mail"}, "a token is made and opened, nothing else"},
	"internal/route":                 {[]string{"internal/mail", "internal/queue", "internal/provider", "internal/limit"}, "a plan is a pure function"},
	"internal/capacity":              {[]string{"internal/mail", "internal/provider", "internal/limit"}, "arithmetic over measured costs and dated prices"},
	"internal/provider/esphttp":      {[]string{"internal/jail", "internal/provider", "internal/seal"}, "shared HTTP knows no provider and no message"},
	"internal/provider/eventjson":    {[]string{"internal/mail", "internal/provider"}, "it knows the forms that all events share, and no provider"},
	"internal/provider/mime":         {[]string{"internal/mail"}, "composing needs the message only"},
	"internal/provider/providertest": {[]string{"internal/mail", "internal/provider", "internal/provider/esphttp", "internal/seal"}, "the suite treats all adapters alike"},
	"internal/provider/ses":          {append([]string{"internal/jail"}, espRule.may...), "as the others; and SNS names the address of its certificate"},
	"internal/provider/smtp":         {append([]string{"internal/jail"}, espRule.may...), "as the others; and an operator names the address that gives tokens"},
	"internal/provider/catalog":      {append(below("internal/provider/", append(kinds, "esphttp")), vocabulary...), "the catalog builds adapters, and is the one package that knows them all"},
	"internal/hostcheck":             {nil, "it reads three headers and needs nothing"},
	"internal/emulator":              {[]string{"internal/hostcheck", "internal/limit"}, "an emulator that shared code with the adapters would share their mistakes"},
	"internal/emulator/catalog":      {append(below("internal/emulator/", kinds), "internal/emulator"), "the catalog is the one package that knows every emulated provider"},
	"internal/postgres":              {append([]string{"migrations"}, vocabulary...), "the store speaks the vocabulary and knows none of its users"},
	"internal/postgres/pgtest":       {[]string{"internal/devpg", "migrations"}, "tests of the store use it, so it cannot use the store"},
	"internal/telemetry":             {[]string{"internal/hostcheck", "internal/seal"}, "it observes and knows nobody"},
	"internal/config":                {[]string{"internal/record", "internal/seal"}, "it reads the environment and builds nothing"},
	"internal/lmtp":                  {[]string{"internal/provider"}, "it takes bounces in and knows nobody who reads them"},
	"internal/deliver":               {append([]string{"internal/telemetry", "internal/unsub"}, vocabulary...), "it declares the store methods that it uses, and app hands them in"},
	"internal/series":                {[]string{"internal/record"}, "it reads a registry and stores nothing"},
	"internal/httpapi":               {append([]string{"api", "internal/series", "internal/telemetry", "internal/unsub"}, vocabulary...), "it declares the store methods that it uses, and app hands them in"},
	"internal/forward":               {append([]string{"internal/telemetry"}, vocabulary...), "it declares the store methods that it uses, and app hands them in"},
	"internal/incident":              {[]string{"internal/mail", "internal/limit", "internal/seal"}, "the judgement is pure"},
	"internal/notify":                {append([]string{"internal/telemetry"}, vocabulary...), "it declares what it uses of the store, the router and the signer, and app hands them in"},
	"internal/dash":                  {[]string{"api", "internal/record"}, "it is a client of the API, and knows roles and scopes by their names"},
	"internal/signin":                {append([]string{"internal/dash"}, vocabulary...), "it is the gate of the dashboard, declares the store methods that it uses, and app hands them in"},
	"internal/app":                   {[]string{"*"}, ""},
	"internal/cli": {[]string{
		"api", "internal/config", "internal/app", "internal/emulator", "internal/emulator/catalog", "internal/devpg", "internal/seal",
		"internal/telemetry", "internal/capacity",
		// The emulators get the limits that the catalog has for accounts of the same kind.
		"internal/limit", "internal/provider", "internal/provider/catalog",
	}, "a client command speaks HTTP through api; whatever needs the store goes through app"},
	"internal/bench": {
		[]string{"api", "internal/app", "internal/devpg", "internal/emulator", "internal/emulator/catalog", "internal/httpapi"},
		"it measures the built program from outside: it makes keys and accounts, and knows nothing of the insides",
	},
	"internal/drill": {nil, "it is tests, of the built program and of nothing inside"},
	"cmd/sendgate":   {[]string{"internal/cli"}, "main hands over and does nothing"},
})

// testOnly are the packages that only tests may import, and that may themselves import testing.
var testOnly = []string{"internal/provider/providertest", "internal/postgres/pgtest"}

// pkg is one package of the module: its non-test files, for every operating system.
type pkg struct {
	name    string
	comment string
	imports map[string]string // path to the file that imports it
}

// tree parses the non-test files of the module, by folder.
func tree(t *testing.T) map[string]*pkg {
	t.Helper()
	pkgs := map[string]*pkg{}
	for _, file := range files(t) {
		// The go command also ignores testdata and names that begin with an underscore.
		skip := strings.HasSuffix(file, "_test.go") || strings.Contains(file, "testdata/") || strings.Contains("/"+file, "/_")
		if skip || path.Ext(file) != ".go" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir := strings.TrimPrefix(path.Dir(file), ".")
		if pkgs[dir] == nil {
			pkgs[dir] = &pkg{name: parsed.Name.Name, imports: map[string]string{}}
		}
		pkgs[dir].add(t, file, parsed)
	}
	if len(pkgs) < 2 {
		t.Fatalf("found %d packages: the walk is broken", len(pkgs))
	}
	return pkgs
}

// add adds the imports of one file.
func (p *pkg) add(t *testing.T, file string, parsed *ast.File) {
	t.Helper()
	p.comment += parsed.Doc.Text()
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		p.imports[imported] = file
	}
}

// files lists the files of the repository by slash-separated path, without the folders of git and of the tools.
func files(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", ".sendgate", "bin", "vendor", "node_modules"}, d.Name()):
			return filepath.SkipDir
		case d.Type().IsRegular() && file != ".git": // in a worktree that is a file
			found = append(found, filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestImportsFollowTheRules(t *testing.T) {
	t.Parallel()
	pkgs := tree(t)
	for _, dir := range slices.Sorted(maps.Keys(pkgs)) {
		r, ok := rules[dir]
		if !ok {
			t.Errorf("%q has no rule: say in arch_test.go what it may import, and why", dir)
			continue
		}
		for _, arrow := range forbidden(pkgs[dir], r) {
			t.Errorf("%s -> %s (in %s) is forbidden: %s. It may import of ours: %s",
				dir, arrow, pkgs[dir].imports[module+"/"+arrow], r.why, strings.Join(r.may, ", "))
		}
	}
}

// A rule that has outlived its package, or that lets in one that is gone, would mislead its reader.
func TestRulesAreAboutPackagesThatExist(t *testing.T) {
	t.Parallel()
	pkgs := tree(t)
	for dir, r := range rules {
		for _, name := range append([]string{dir}, r.may...) {
			if pkgs[name] == nil && name != "" && name != "*" { // the root has tests only
				t.Errorf("the rule of %q names %q, which is no package", dir, name)
			}
		}
	}
	for _, name := range testOnly {
		if pkgs[name] == nil {
			t.Errorf("%q is no package", name)
		}
	}
}

// forbidden returns those of our packages that p imports against r.
func forbidden(p *pkg, r rule) []string {
	var arrows []string
	for _, imported := range slices.Sorted(maps.Keys(p.imports)) {
		ours, ok := strings.CutPrefix(imported, module+"/")
		if ok && !slices.Contains(r.may, ours) && !slices.Contains(r.may, "*") {
			arrows = append(arrows, ours)
		}
	}
	return arrows
}

func TestRulesCatchAForbiddenArrow(t *testing.T) {
	t.Parallel()
	p := &pkg{imports: map[string]string{
		"context":                     "x.go",
		module + "/internal/mail":     "x.go",
		module + "/internal/route":    "x.go",
		module + "/internal/postgres": "x.go",
	}}
	if got, want := forbidden(p, rules["internal/deliver"]), []string{"internal/postgres"}; !slices.Equal(got, want) {
		t.Errorf("forbidden(deliver) = %v, want %v", got, want)
	}
	if got := forbidden(p, rules["internal/app"]); len(got) > 0 {
		t.Errorf("forbidden(app) = %v, want none", got)
	}
}

func TestProductionCodeImportsNoTestCode(t *testing.T) {
	t.Parallel()
	for dir, p := range tree(t) {
		if slices.Contains(testOnly, dir) {
			continue
		}
		for imported, file := range p.imports {
			ours := strings.TrimPrefix(imported, module+"/")
			if imported == "testing" || strings.HasPrefix(imported, "testing/") || slices.Contains(testOnly, ours) {
				t.Errorf("%s imports %s: test code does not belong in the program", file, imported)
			}
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	t.Parallel()
	for dir, p := range tree(t) {
		want := "Package " + p.name + " "
		if p.name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(p.comment, want) {
			t.Errorf("package %s in %q: no comment that begins with %q. It says what the package decides, what it leaves "+
				"to others, and the mistake a newcomer would make", p.name, dir, want)
		}
		if strings.Count(p.comment, want) > 1 {
			t.Errorf("package %s in %q has several package comments: keep one", p.name, dir)
		}
	}
}

// A reader takes in a file as a whole. A longer one has parts that deserve a file of their own.
func TestNoFileIsTooLong(t *testing.T) {
	t.Parallel()
	const most = 450 // lines
	for _, file := range files(t) {
		if path.Ext(file) != ".go" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("\n")); n > most {
			t.Errorf("%s has %d lines, want at most %d", file, n, most)
		}
	}
}

// TestNothingPointsOutsideTheRepository looks for paths of the machines that sendgate was written on.
func TestNothingPointsOutsideTheRepository(t *testing.T) {
	t.Parallel()
	// In two parts, so that this file does not find itself.
	banned := []string{"../" + "shared", "/wor" + "k/"}
	for _, file := range files(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range banned {
			if at := bytes.Index(text, []byte(b)); at >= 0 {
				t.Errorf("%s:%d mentions %q, which exists on one machine only", file, 1+bytes.Count(text[:at], []byte("\n")), b)
			}
		}
	}
}
