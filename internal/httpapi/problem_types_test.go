package httpapi

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"html"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// codesInSource finds the codes that the code can answer with: the literals where a refusal is made, with the status beside
// them, 0 for one that is worked out.
func codesInSource(t *testing.T) map[string][]int {
	t.Helper()
	statuses := map[string]int{}
	for n := 400; n < 600; n++ {
		statuses["Status"+strings.ReplaceAll(http.StatusText(n), " ", "")] = n
	}
	found := map[string][]int{}
	note := func(status, code ast.Expr, where token.Position) {
		n := 0
		if s, ok := status.(*ast.SelectorExpr); ok {
			n = statuses[s.Sel.Name]
		}
		switch c := code.(type) {
		case *ast.BasicLit:
			word, err := strconv.Unquote(c.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[word] = append(found[word], n)
		case *ast.Ident: // an argument of refuse or conflict, whose calls are looked at
			if c.Name != "code" || filepath.Base(where.Filename) != "problem.go" {
				t.Errorf("%s: the code of a refusal is worked out; write it down, so that this test sees it", where)
			}
		case *ast.CallExpr:
			if f, ok := c.Fun.(*ast.Ident); !ok || f.Name != "unavailableCode" {
				t.Errorf("%s: the code of a refusal is worked out; write it down, so that this test sees it", where)
			}
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "refuse" {
					note(n.Args[0], n.Args[1], set.Position(n.Pos()))
				} else if ok && f.Name == "conflict" {
					note(&ast.SelectorExpr{Sel: ast.NewIdent("StatusConflict")}, n.Args[1], set.Position(n.Pos()))
				}
			case *ast.CompositeLit:
				if name, ok := n.Type.(*ast.Ident); ok && name.Name == "refusal" {
					var fields [2]ast.Expr
					for _, e := range n.Elts {
						if pair, ok := e.(*ast.KeyValueExpr); ok {
							if i := slices.Index([]string{"status", "code"}, fmt.Sprint(pair.Key)); i >= 0 {
								fields[i] = pair.Value
							}
						}
					}
					note(fields[0], fields[1], set.Position(n.Pos()))
				}
			}
			return true
		})
	}
	return found
}

func TestEveryCodeIsExplained(t *testing.T) {
	t.Parallel()
	found := codesInSource(t)
	if len(found) < 40 {
		t.Fatalf("found %d codes: the search is broken", len(found))
	}
	for code, statuses := range found {
		p, ok := problemTypes[code]
		if !ok {
			t.Errorf("problemTypes has no line for %s", code)
			continue
		}
		for _, status := range statuses {
			if status != 0 && p.status != 0 && status != p.status {
				t.Errorf("problemTypes gives %s the status %d, and it is answered with %d", code, p.status, status)
			}
		}
	}
	for code, p := range problemTypes {
		if _, ok := found[code]; !ok && p.status != http.StatusServiceUnavailable { // those are the reasons of record.Unavailable
			t.Errorf("problemTypes explains %s, which nothing answers", code)
		}
	}
}

// A type is resolved as RFC 3986 says, from the URL of the request that was answered with it.
func TestEveryTypeResolvesOnTheServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for code, p := range problemTypes {
		base, err := url.Parse("https://send.example.com/admin/v1/pools/default?x=1")
		if err != nil {
			t.Fatal(err)
		}
		target, err := base.Parse(refuse(400, code, "").problem().Type)
		if err != nil || target.Host != base.Host {
			t.Fatalf("type of %s leads to %v, %v", code, target, err)
		}
		a := r.do("GET", target.String(), "", "")
		page := html.UnescapeString(string(a.body))
		if a.status != 200 || !strings.Contains(page, p.text) || !strings.Contains(page, "<code>"+code+"</code>") {
			t.Errorf("GET %s = %d %s", target, a.status, a.body)
		}
	}
	a := r.do("GET", "/problems/no_such_code", "", "")
	if a.status != 404 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("GET of an unknown type = %d %s", a.status, a.body)
	}
	for _, code := range []string{"<script>", "..%2f..", "%00", strings.Repeat("x", 5000)} {
		if a := r.do("GET", "/problems/"+url.PathEscape(code), "", ""); a.status != 404 || strings.Contains(string(a.body), "<script") {
			t.Errorf("GET /problems/%.20s = %d %s", code, a.status, a.body)
		}
	}
}

func TestTypeIsTheSameAtEveryAddress(t *testing.T) {
	t.Parallel()
	if got := problemOf(invalid("to", "x", "y")).Type; got != "/problems/invalid" {
		t.Errorf("type = %q", got)
	}
	if got := refuse(418, "teapot", "").problem().Type; got != "about:blank" {
		t.Errorf("type of what nothing explains = %q", got)
	}
}
