package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sendgate/sendgate/internal/app"
	"github.com/sendgate/sendgate/internal/config"
)

type secretsCmd struct {
	Reseal resealCmd `cmd:"" help:"Encrypt stored secrets with the present secret key, after it was changed."`
}

type resealCmd struct{ format }

// Help implements kong.HelpProvider.
func (*resealCmd) Help() string {
	return `Secrets that were encrypted with a key of SENDGATE_SECRET_KEY_PREVIOUS are encrypted with SENDGATE_SECRET_KEY: those of provider accounts, and the signing secrets and headers of webhook endpoints. ` +
		`Works on SENDGATE_DATABASE_URL with the settings of serve. Processes may run meanwhile if all of them have both keys. If it was interrupted, repeat it. ` +
		`The exit code is 1 if none of the keys decrypts some of the secrets; it lists them. docs/operations.md describes a whole change of keys.

Example:

  sendgate secrets reseal`
}

// Run implements the command.
func (c *resealCmd) Run(ctx context.Context, s *Streams) error {
	environ, err := s.doctorEnv()
	if err != nil {
		return err
	}
	cfg, err := config.Load(environ)
	if err != nil {
		return configError(s, err)
	}
	var at atomic.Int64
	p := startProgress(s.Err, func(time.Duration) string { return fmt.Sprintf("%d secrets", at.Load()) })
	n, err := app.Reseal(ctx, cfg, func(n app.Sealed) { at.Store(int64(n.Current + n.Resealed + n.Changed + len(n.Unreadable))) })
	p.stop()
	if err != nil {
		if n.Resealed > 0 {
			fmt.Fprintf(s.Err, "interrupted after %d secrets; repeat the command\n", n.Resealed)
		}
		return err
	}
	out := resealed{Resealed: n.Resealed, Current: n.Current, Changed: n.Changed, Unreadable: n.Unreadable}
	err = c.show(s, out, func(w io.Writer) {
		row(w, "encrypted with the present key", strconv.Itoa(n.Resealed))
		row(w, "already encrypted with it", strconv.Itoa(n.Current))
		if n.Changed > 0 {
			row(w, "changed by others meanwhile", strconv.Itoa(n.Changed), "repeat the command")
		}
		for _, name := range n.Unreadable {
			row(w, "unreadable", name)
		}
	})
	if err == nil && len(n.Unreadable) > 0 {
		fmt.Fprintf(s.Err, "none of the keys decrypts %d secrets: add their key to SENDGATE_SECRET_KEY_PREVIOUS and repeat the command, or store them again\n", len(n.Unreadable))
		return errShown
	}
	return err
}

// resealed is the output of the command.
type resealed struct {
	Resealed   int      `json:"resealed"`
	Current    int      `json:"current"`
	Changed    int      `json:"changed"`
	Unreadable []string `json:"unreadable"`
}
