-- Makes the two roles of sendgate in the current database. Run it as a superuser:
--
--   sendgate_owner   owns the schema, and runs "sendgate migrate up"
--   sendgate_serve   reads and writes rows, and runs "sendgate serve", "doctor" and "restore"
--
-- Neither can log in before it has a password (ALTER ROLE ... LOGIN PASSWORD). This may run on an empty database and on one that is in
-- use, and may be repeated: existing tables, sequences and functions get the new owner.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sendgate_owner', 'sendgate_serve'] LOOP
        IF to_regrole(name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE', name);
        END IF;
    END LOOP;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sendgate_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO sendgate_serve', current_database());
    FOR name IN SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO sendgate_owner', name);
    END LOOP;
    FOR name IN SELECT c.oid::regclass::text FROM pg_class c -- the sequence of a column follows its table
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
    LOOP
        EXECUTE format('ALTER SEQUENCE %s OWNER TO sendgate_owner', name);
    END LOOP;
    FOR name IN SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO sendgate_owner', name);
    END LOOP;
END
$$;

ALTER SCHEMA public OWNER TO sendgate_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO sendgate_serve;

GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO sendgate_serve;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO sendgate_serve;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO sendgate_serve;

-- The audit can only be added to, by inserting an entry. Run this again when no process of a release before 0.2 is left.
DO $$
BEGIN
    IF to_regclass('public.audit_link') IS NOT NULL THEN
        REVOKE UPDATE, DELETE ON public.audit FROM sendgate_serve;
        REVOKE INSERT, UPDATE, DELETE ON public.audit_link FROM sendgate_serve;
    END IF;
END
$$;

-- The same rights for objects that later migrations make.
ALTER DEFAULT PRIVILEGES FOR ROLE sendgate_owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO sendgate_serve;
ALTER DEFAULT PRIVILEGES FOR ROLE sendgate_owner IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO sendgate_serve;
ALTER DEFAULT PRIVILEGES FOR ROLE sendgate_owner IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO sendgate_serve;
