-- The books are checked every minute: which messages are open, and which calls. Both are few beside what is kept, and each
-- gets an index of its own, so that looking for them costs what they are and not what is kept.
--
-- No transaction: each day is indexed by itself, and only its own writers wait meanwhile. Today's is the one that is
-- written to; its index takes about a second per two million messages of the day. Run again after a failure, it goes on.

-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS message_open ON ONLY message (id) WHERE status IN ('queued', 'scheduled', 'sending', 'unknown');
CREATE INDEX IF NOT EXISTS attempt_open ON ONLY attempt (message_id, n) WHERE class IS NULL;

-- Days that are made later get both from their parents.
-- +goose StatementBegin
DO $$
DECLARE
    day record;
BEGIN
    FOR day IN
        SELECT inhparent::regclass::text AS parent, inhrelid::regclass::text AS child
        FROM pg_inherits
        WHERE inhparent IN ('message'::regclass, 'attempt'::regclass) AND NOT inhdetachpending
        ORDER BY inhrelid::regclass::text DESC
    LOOP
        CONTINUE WHEN to_regclass(day.child) IS NULL OR EXISTS ( -- dropped meanwhile, or done before
            SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
            WHERE i.inhparent = (day.parent || '_open')::regclass AND x.indrelid = day.child::regclass);
        IF day.parent = 'message' THEN
            EXECUTE format('CREATE INDEX %I ON %I (id) WHERE status IN (''queued'', ''scheduled'', ''sending'', ''unknown'')',
                day.child || '_open', day.child);
        ELSE
            EXECUTE format('CREATE INDEX %I ON %I (message_id, n) WHERE class IS NULL', day.child || '_open', day.child);
        END IF;
        EXECUTE format('ALTER INDEX %I ATTACH PARTITION %I', day.parent || '_open', day.child || '_open');
        COMMIT;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP INDEX IF EXISTS attempt_open;
DROP INDEX IF EXISTS message_open;
