package postgres

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// However a connection string holds a password, what is told of it does not, and still says where it leads.
func TestSafeURLTellsWhereItLeadsAndNoPassword(t *testing.T) {
	t.Parallel()
	passfile := filepath.Join(t.TempDir(), "pass")
	must(t, os.WriteFile(passfile, []byte("h:5432:x:u:hunter2\n"), 0o600))
	const at, unreadable = "postgres://u@h:5432/x", "(not readable)"
	for dsn, want := range map[string]string{
		"postgres://u:hunter2@h/x":                                        at,
		"postgresql://u:hunter2@h:5432/x":                                 at,
		"postgres://u:hunter2%2F%3F%23%40@h/x":                            at,
		"postgres://u@h/x?password=hunter2":                               at,
		"postgres://h/x?user=u&password=hunter2&sslmode=disable":          at,
		"postgres://u@h/x?pass%77ord=hunter2":                             at,
		"postgres://u@h/x?sslpassword=hunter2&sslmode=disable":            at,
		"postgres://u@h/x?passfile=" + passfile:                           at,
		"postgres://u@h/x?application_name=hunter2":                       at,
		"postgres://u@h/x?options=-c%20shop.password%3Dhunter2":           at,
		"postgres://u:hunter2@h,i:6432/x?target_session_attrs=read-write": "postgres://u@h:5432,i:6432/x",
		"postgres://u:hunter2@[::1]:6432/x":                               "postgres://u@[::1]:6432/x",
		"postgres://u:hunter2@/x?host=/run/pg":                            "postgres://u@/x?host=/run/pg/.s.PGSQL.5432",
		"host=h user=u password=hunter2 dbname=x":                         at,
		"host=h user=u dbname=x password='hunter2 \\' hunter2'":           at,
		"host = h user = u dbname = x password = hunter2":                 at,
		"host=h user=u dbname=x sslpassword=hunter2":                      at,
		"host=h user=u dbname=x passfile=" + passfile:                     at,
		"host=h port=notaport password=hunter2":                           unreadable,
		"host=h password='hunter2":                                        unreadable,
		"hunter2":                                                         unreadable,
		"postgres://u:hunter2@h:notaport/x":                               unreadable,
		"postgres://u:hunter2@%zz/x":                                      unreadable,
		"postgres://u:1@hunter2@h/x":                                      unreadable,
		"postgres://u:1/hunter2@h/x":                                      unreadable, // these four are read otherwise than meant
		"postgres://u:1?hunter2@h/x":                                      unreadable,
		"postgres://u:1#hunter2@h/x":                                      unreadable,
		"mysql://u:hunter2@h/x":                                           unreadable,
	} {
		got := SafeURL(dsn)
		if got != want || strings.Contains(got, "hunter2") {
			t.Errorf("SafeURL(%s) = %s, want %s", dsn, got, want)
		}
		if want != unreadable {
			continue
		}
		var said bytes.Buffer
		for what, err := range map[string]error{"Migrate": Migrate(t.Context(), dsn, &said), "MigrateStatus": MigrateStatus(t.Context(), dsn, &said)} {
			if err == nil || strings.Contains(err.Error()+said.String(), "hunter2") {
				t.Errorf("%s(%s) = %v, want an error without the password", what, dsn, err)
			}
		}
	}
}

func TestAFileThatCannotBeReadIsNamed(t *testing.T) {
	t.Parallel()
	_, err := parseURL("postgres://u:hunter2@h/x?sslmode=verify-full&sslrootcert=/nonexistent/ca.pem")
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/ca.pem") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v, want the file named", err)
	}
}
