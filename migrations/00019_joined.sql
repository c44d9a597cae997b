-- Several messages may travel in one call. The first of them opens the call, and the others join it: they cost no request. A
-- binary that does not know this column counts each as a call of its own, and so calls less often than it may.

-- +goose Up
-- A long reader, such as a dump, would keep this waiting for its lock, and all claims behind it. So it gives up: repeat it.
SET LOCAL lock_timeout = '2s';
ALTER TABLE inflight ADD COLUMN joined boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE inflight DROP COLUMN joined;
