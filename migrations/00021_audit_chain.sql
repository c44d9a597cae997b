-- The audit can only be added to, and each entry is linked to the one before it by a hash. An entry is linked when its transaction
-- commits: the lock that puts writers in line is then the last that any of them takes, so that no two can wait for each other, and it
-- is held only while a commit takes. Counts of failed logins are not linked: strangers cause them, and only the newest are kept.
--
-- An earlier binary writes entries without the new columns. They are linked as well.

-- +goose Up
SET LOCAL lock_timeout = '2s'; -- a long reader, such as a dump, would keep this waiting, and all writers behind it: repeat it then
ALTER TABLE audit
    ADD COLUMN name       text NOT NULL DEFAULT '', -- of the key
    ADD COLUMN address    text NOT NULL DEFAULT '', -- of the client
    ADD COLUMN request_id text NOT NULL DEFAULT '',
    ADD COLUMN before     jsonb,                    -- what the change replaced, and by what: the fields that differ
    ADD COLUMN after      jsonb;

-- One row for each entry, in the order of commits. n has no gaps. A hash is SHA-256 of the hash before it (nothing for the first
-- row), n in decimal, and audit_content.
CREATE TABLE audit_link (
    n        bigint PRIMARY KEY,
    audit_id bigint NOT NULL UNIQUE REFERENCES audit,
    hash     bytea  NOT NULL UNIQUE CHECK (octet_length(hash) = 32)
);

-- audit_content is the text of an entry that its hash covers: a JSON array.
-- +goose StatementBegin
CREATE FUNCTION audit_content(a audit) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_array(a.id, to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), a.actor, a.name, a.address,
        a.request_id, a.action, a.target, a.detail, a.before, a.after)::text
$$;
-- +goose StatementEnd

-- link_audit adds the link of an entry. It works for the owner of audit_link only.
-- +goose StatementBegin
CREATE FUNCTION link_audit(a audit) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last audit_link;
BEGIN
    PERFORM pg_advisory_xact_lock(7381004);
    SELECT * INTO last FROM audit_link ORDER BY n DESC LIMIT 1;
    last.n := coalesce(last.n, 0) + 1;
    INSERT INTO audit_link (n, audit_id, hash)
    VALUES (last.n, a.id, sha256(coalesce(last.hash, '') || convert_to(last.n || audit_content(a), 'UTF8')));
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION audit_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM link_audit(NEW);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- audit_protected lets nobody change an entry, and nobody delete one that has a link.
-- +goose StatementBegin
CREATE FUNCTION audit_protected() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM audit_link WHERE audit_id = OLD.id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit can only be added to' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd

-- drop_failed_logins deletes old counts of failed logins: all but the newest 20,000, at most 5,000 at once.
-- +goose StatementBegin
CREATE FUNCTION drop_failed_logins() RETURNS bigint LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM audit WHERE id = ANY (ARRAY(SELECT id FROM audit WHERE action = 'login.failed' ORDER BY id DESC OFFSET 20000 LIMIT 5000))
        RETURNING 1)
    SELECT count(*) FROM gone
$$;
-- +goose StatementEnd

-- drop_audit deletes the oldest entries, those from before a time, up to the first that is not older and at most 5,000. It never
-- deletes the last. It adds an entry that says up to which link they are gone, and its hash, so that the rest can still be verified.
-- +goose StatementBegin
CREATE FUNCTION drop_audit(until timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    cut  audit_link;
    gone bigint[];
BEGIN
    IF until > now() - interval '30 days' THEN
        RAISE EXCEPTION 'drop_audit: entries are kept for 30 days or longer' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(7381004);
    WITH old AS (
        SELECT l.n, a.at FROM audit_link l LEFT JOIN audit a ON a.id = l.audit_id ORDER BY l.n LIMIT 5001
    )
    SELECT * INTO cut FROM audit_link
    WHERE n < least((SELECT min(old.n) FROM old WHERE old.at >= until OR old.at IS NULL), (SELECT max(old.n) FROM old))
    ORDER BY n DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH links AS (DELETE FROM audit_link WHERE n <= cut.n RETURNING audit_id)
    SELECT array_agg(audit_id) INTO gone FROM links;
    DELETE FROM audit WHERE id = ANY (gone);
    INSERT INTO audit (actor, action, target, detail) VALUES ('system', 'audit.dropped', 'audit',
        jsonb_build_object('through', cut.n, 'hash', encode(cut.hash, 'hex'), 'entries', cardinality(gone), 'until', until));
    RETURN cardinality(gone);
END
$$;
-- +goose StatementEnd

-- The entries that are there get their links now: what was changed before this can't be found.
-- +goose StatementBegin
DO $$
DECLARE
    a    audit;
    f    regprocedure;
    name text;
BEGIN
    FOR a IN SELECT * FROM audit WHERE action <> 'login.failed' ORDER BY id LOOP
        PERFORM link_audit(a);
    END LOOP;
    FOREACH f IN ARRAY ARRAY['audit_inserted()', 'audit_protected()', 'drop_failed_logins()', 'drop_audit(timestamptz)']::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = %I, pg_temp', f, current_schema());
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
    -- A role that may write rows of all tables may read these two, and add to one. In a database that is in use, it may delete counts of
    -- failed logins until docker/roles.sql runs again, because an earlier binary does that by itself.
    FOR name IN SELECT DISTINCT pg_get_userbyid(x.grantee) FROM pg_class c, aclexplode(c.relacl) x
        WHERE c.oid = 'audit_link'::regclass AND x.grantee NOT IN (0, c.relowner)
    LOOP
        EXECUTE format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_link FROM %I', name);
        EXECUTE format('REVOKE UPDATE, TRUNCATE ON audit FROM %I', name);
        IF NOT EXISTS (SELECT FROM api_key) THEN
            EXECUTE format('REVOKE DELETE ON audit FROM %I', name);
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE CONSTRAINT TRIGGER audit_inserted AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.action <> 'login.failed') EXECUTE FUNCTION audit_inserted();
CREATE TRIGGER audit_protected BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_protected();

-- People who had their data erased, and are not mailed again. A hash is HMAC-SHA-256 of the folded address, in hex, under a key that is
-- sealed: without it nobody finds out from this table who they are.
CREATE TABLE erasure_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sealed   bytea   NOT NULL -- AES-256-GCM, bound to "erasure/key"
);
CREATE TABLE erased (
    tenant_id integer     NOT NULL REFERENCES tenant,
    hash      text        NOT NULL CHECK (hash ~ '^[0-9a-f]{64}$'),
    complaint boolean     NOT NULL, -- the person had complained
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, hash)
);

-- +goose Down
DROP TABLE erased, erasure_key;
DROP TRIGGER audit_protected ON audit;
DROP TRIGGER audit_inserted ON audit;
DROP FUNCTION drop_audit(timestamptz);
DROP FUNCTION drop_failed_logins();
DROP FUNCTION audit_protected();
DROP FUNCTION audit_inserted();
DROP FUNCTION link_audit(audit);
DROP FUNCTION audit_content(audit);
DROP TABLE audit_link;
ALTER TABLE audit DROP COLUMN name, DROP COLUMN address, DROP COLUMN request_id, DROP COLUMN before, DROP COLUMN after;
