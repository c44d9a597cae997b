-- Events that carry no id of ours are matched by the provider's id of the message, whenever they come: a bounce may come days
-- after the call, and not every provider says when it took the message.
--
-- No transaction: each day is indexed by itself, and only its own writers wait meanwhile. Run again after a failure, it goes on.

-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS attempt_theirs ON ONLY attempt (provider_message_id) WHERE provider_message_id <> '';

-- Days that are made later get it from their parent.
-- +goose StatementBegin
DO $$
DECLARE
    day record;
BEGIN
    FOR day IN
        SELECT inhrelid::regclass::text AS child FROM pg_inherits
        WHERE inhparent = 'attempt'::regclass AND NOT inhdetachpending
        ORDER BY inhrelid::regclass::text DESC
    LOOP
        CONTINUE WHEN to_regclass(day.child) IS NULL OR EXISTS ( -- dropped meanwhile, or done before
            SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
            WHERE i.inhparent = 'attempt_theirs'::regclass AND x.indrelid = day.child::regclass);
        EXECUTE format('CREATE INDEX %I ON %I (provider_message_id) WHERE provider_message_id <> ''''', day.child || '_theirs', day.child);
        EXECUTE format('ALTER INDEX attempt_theirs ATTACH PARTITION %I', day.child || '_theirs');
        COMMIT;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The report is known by the address that it came to and not by whom it names. A binary that does not know this column takes
-- it for false: such a report is then kept without effect.
ALTER TABLE orphan ADD COLUMN IF NOT EXISTS by_message boolean NOT NULL DEFAULT false;

-- +goose Down
ALTER TABLE orphan DROP COLUMN by_message;
DROP INDEX IF EXISTS attempt_theirs;
