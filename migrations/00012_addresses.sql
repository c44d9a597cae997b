-- One address is one recipient: addresses are compared by what mail.FoldAddress makes of them, and it alone folds. A column
-- holds that where it is not the address itself. Rows of earlier binaries lack it, and go by their lower case in ASCII,
-- which no locale changes; that finds all of them but those with a capital outside of ASCII.
--
-- The indexes hold only what the spelling hides, but for senders, which had none. No transaction: each day is indexed by
-- itself, and only its own writers wait meanwhile: on a machine that was busy, 1.5 s per million recipients of the day, and
-- 6 s per million messages. Run again after a failure, it goes on.

-- +goose NO TRANSACTION
-- +goose Up

-- Each of these holds its lock for a moment. To wait for it would hold up all writers behind it, as long as a backup may
-- take: hence many short tries.
-- +goose StatementBegin
DO $$
DECLARE
    change text;
BEGIN
    FOREACH change IN ARRAY ARRAY[
        'ALTER TABLE recipient ADD COLUMN IF NOT EXISTS folded text',
        'ALTER TABLE message ADD COLUMN IF NOT EXISTS sender_folded text',
        'ALTER TABLE suppression DROP CONSTRAINT IF EXISTS suppression_email_check' -- SQL folds by the locale
    ] LOOP
        FOR try IN 1..120 LOOP
            BEGIN
                SET LOCAL lock_timeout = '500ms';
                EXECUTE change;
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                IF try = 120 THEN RAISE; END IF;
                PERFORM pg_sleep(0.5);
            END;
        END LOOP;
        COMMIT;
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE INDEX IF NOT EXISTS recipient_folded ON ONLY recipient (tenant_id, (coalesce(folded, lower(email COLLATE "C"))), message_id)
    WHERE folded IS NOT NULL OR email <> lower(email COLLATE "C");
CREATE INDEX IF NOT EXISTS message_sender ON ONLY message (tenant_id, (coalesce(sender_folded, lower(sender COLLATE "C"))), id);
-- Events about addresses that are no recipients of their message.
CREATE INDEX IF NOT EXISTS event_other ON ONLY event (tenant_id, recipient, id) WHERE n IS NULL AND recipient <> '';

-- Days that are made later get all three from their parents.
-- +goose StatementBegin
DO $$
DECLARE
    day record;
BEGIN
    FOR day IN
        SELECT x.indexrelid::regclass::text AS parent, i.inhrelid::regclass::text AS child, substr(x.indexrelid::regclass::text, strpos(x.indexrelid::regclass::text, '_')) AS suffix,
               replace(pg_get_indexdef(x.indexrelid), ' ON ONLY ', ' ON ') AS definition
        FROM pg_index x JOIN pg_inherits i ON i.inhparent = x.indrelid AND NOT i.inhdetachpending
        WHERE x.indexrelid IN ('recipient_folded'::regclass, 'message_sender'::regclass, 'event_other'::regclass)
        ORDER BY i.inhrelid::regclass::text DESC
    LOOP
        CONTINUE WHEN to_regclass(day.child) IS NULL OR EXISTS ( -- dropped meanwhile, or done before
            SELECT FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
            WHERE i.inhparent = day.parent::regclass AND x.indrelid = day.child::regclass);
        EXECUTE regexp_replace(day.definition, '^CREATE INDEX \S+ ON \S+ ', format('CREATE INDEX %I ON %I ', day.child || day.suffix, day.child));
        EXECUTE format('ALTER INDEX %I ATTACH PARTITION %I', day.parent, day.child || day.suffix);
        COMMIT;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The addresses that earlier binaries may have folded otherwise, see DB.RefoldSuppressions. They are few.
DROP INDEX IF EXISTS suppression_not_ascii;
CREATE INDEX CONCURRENTLY suppression_not_ascii ON suppression (tenant_id, email, stream) WHERE email COLLATE "C" ~ '[^ -~]';

-- +goose Down
DROP INDEX IF EXISTS suppression_not_ascii;
DELETE FROM suppression WHERE email <> lower(email);
ALTER TABLE suppression ADD CONSTRAINT suppression_email_check CHECK (email = lower(email));
DROP INDEX IF EXISTS event_other, message_sender, recipient_folded;
ALTER TABLE message DROP COLUMN IF EXISTS sender_folded;
ALTER TABLE recipient DROP COLUMN IF EXISTS folded;
