-- The service does not have to own its tables: what it needs beside reading and writing rows are these three functions, which
-- run as their owner. Each does one thing, for the tables that it is meant for. Whoever may call them is granted that by name.

-- +goose Up

-- drop_day drops a day of a parent. The caller sets lock_timeout: the parent is locked for everybody until this one has it.
-- +goose StatementBegin
CREATE FUNCTION drop_day(parent text, day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    child   text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
    pending boolean;
BEGIN
    IF parent <> ALL (ARRAY['message', 'body', 'recipient', 'attempt', 'event', 'delivery']) OR day >= (now() AT TIME ZONE 'UTC')::date - 1 THEN
        RAISE EXCEPTION 'drop_day: % is not an old day of sendgate', child USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT inhdetachpending INTO pending FROM pg_inherits WHERE inhrelid = child::regclass;
    IF pending THEN
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I FINALIZE', parent, child);
    ELSIF NOT pending THEN
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child);
    END IF;
    EXECUTE format('DROP TABLE %I', child);
END
$$;
-- +goose StatementEnd

-- probe_write takes 256 kB of new pages of the disk, and gives them back. Rows below 2 kB are not compressed.
-- +goose StatementBegin
CREATE FUNCTION probe_write() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    name text := format('sendgate_probe_%s', pg_backend_pid());
BEGIN
    EXECUTE format('CREATE UNLOGGED TABLE %I AS SELECT repeat(''x'', 1900) AS filler FROM generate_series(1, 128)', name);
    EXECUTE format('DROP TABLE %I', name);
END
$$;
-- +goose StatementEnd

-- The path is fixed, after pg_catalog: nobody's tables or functions are taken for ours, temporary ones included.
-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOREACH f IN ARRAY ARRAY['ensure_partitions(date, date)', 'drop_day(text, date)', 'probe_write()']::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION probe_write();
DROP FUNCTION drop_day(text, date);
ALTER FUNCTION ensure_partitions(date, date) SECURITY INVOKER RESET search_path;
GRANT EXECUTE ON FUNCTION ensure_partitions(date, date) TO PUBLIC;
