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
	Reseal resealCmd `cmd:"" help:"Seal stored secrets under the present secret key, after it was changed."`
}

type resealCmd struct{ format }

// Help implements kong.HelpProvider.
func (*resealCmd) Help() string {
	return `Everything that is stored under a key of SENDGATE_SECRET_KEY_PREVIOUS is sealed under SENDGATE_SECRET_KEY: secrets of provider accounts, signing secrets and headers of webhook endpoints. ` +
		`Works on SENDGATE_DATABASE_URL with the settings of serve, while processes work on it, if all of them have both keys. What was broken off is finished by repeating it. ` +
		`The exit code is 1 when some secrets open with none of the keys; those are listed. docs/operations.md tells the whole of a change of keys.

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
			fmt.Fprintf(s.Err, "broken off after %d secrets; repeat the command\n", n.Resealed)
		}
		return err
	}
	out := resealed{Resealed: n.Resealed, Current: n.Current, Changed: n.Changed, Unreadable: n.Unreadable}
	err = c.show(s, out, func(w io.Writer) {
		row(w, "sealed under the present key", strconv.Itoa(n.Resealed))
		row(w, "were so before", strconv.Itoa(n.Current))
		if n.Changed > 0 {
			row(w, "stored by others meanwhile", strconv.Itoa(n.Changed), "repeat the command")
		}
		for _, name := range n.Unreadable {
			row(w, "does not open", name)
		}
	})
	if err == nil && len(n.Unreadable) > 0 {
		fmt.Fprintf(s.Err, "%d secrets open with none of the keys: set SENDGATE_SECRET_KEY_PREVIOUS to theirs and repeat this, or store them again\n", len(n.Unreadable))
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
