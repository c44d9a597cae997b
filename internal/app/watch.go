package app

import (
	"context"

	"github.com/sendgate/sendgate/internal/forward"
	"github.com/sendgate/sendgate/internal/jail"
	"github.com/sendgate/sendgate/internal/notify"
	"github.com/sendgate/sendgate/internal/provider"
	"github.com/sendgate/sendgate/internal/provider/catalog"
)

// startWatch starts the watch for incidents.
func (a *App) startWatch() error {
	watch, err := notify.New(notify.Options{
		Store: a.store(), Router: a.engine, Client: jail.New(a.jail()), Sign: forward.Sign, Log: a.log, Metrics: a.metrics, Clock: a.clock,
		Reports: func(kind provider.Kind) bool {
			spec, _ := catalog.Spec(kind)
			return spec.Events.Delivered
		},
	})
	if err != nil {
		return err
	}
	a.watch = watch
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch.Run(ctx)
	}()
	a.onStop("watch", func(context.Context) error {
		cancel()
		<-done
		return nil
	})
	return nil
}
