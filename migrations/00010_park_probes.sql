-- A park heals by itself: when probe_at has come, one process takes it a while further and lets one message through. What is
-- parked stands in sender_domain: '' for the account, a domain, or one address of it, which a binary that does not know of
-- addresses shows and keeps nothing back for.

-- +goose Up
ALTER TABLE account_park
    ADD COLUMN probes   integer     NOT NULL DEFAULT 0, -- made in vain
    ADD COLUMN probe_at timestamptz NOT NULL DEFAULT now() + interval '5 minutes',
    ADD COLUMN tried_at timestamptz NOT NULL DEFAULT now(); -- when a call last met the refusal

-- +goose Down
ALTER TABLE account_park DROP COLUMN probes, DROP COLUMN probe_at, DROP COLUMN tried_at;
