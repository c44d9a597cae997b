package httpapi

import (
	"context"
	"net/netip"
	"time"

	"github.com/sendgate/sendgate/internal/record"
)

func (f *fakeStore) SetKeyNetworks(_ context.Context, actor, id string, networks []netip.Prefix) error {
	done, err := f.enter("SetKeyNetworks")
	defer done()
	if err != nil {
		return err
	}
	k, ok := f.keys[id]
	if !ok {
		return record.ErrNotFound
	}
	k.Networks = networks
	f.keys[id] = k
	f.note(actor, "key.update", id)
	return nil
}

func (f *fakeStore) RotateKey(_ context.Context, actor, id, next string, hash []byte, overlap time.Duration) error {
	done, err := f.enter("RotateKey")
	defer done()
	if err != nil {
		return err
	}
	k, ok := f.keys[id]
	if !ok || !valid(&k, f.at) {
		return record.ErrNotFound
	}
	made := k
	made.ID, made.Hash, made.CreatedAt = next, hash, f.at
	f.keys[next] = made
	k.ExpiresAt = f.at.Add(overlap)
	f.keys[id] = k
	f.note(actor, "key.rotate", id)
	return nil
}
