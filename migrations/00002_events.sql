-- Events come back: what providers report of each recipient, who is told of it, and who must not be mailed again.

-- +goose Up

-- One fact about one recipient. Partitioned by day on its own id, a UUIDv7 made when it was received. One payload of a
-- provider may tell of several recipients: origin is the event that keeps the payload, part counts from 0 within it.
CREATE TABLE event (
    id          uuid        NOT NULL PRIMARY KEY,
    origin      uuid        NOT NULL,
    part        smallint    NOT NULL DEFAULT 0,
    tenant_id   integer     NOT NULL DEFAULT 0, -- 0: the message is not known (yet)
    account_id  integer     NOT NULL DEFAULT 0, -- 0: ours, of no provider
    message_id  uuid,
    n           smallint,                       -- of the recipient, where it is one of the message's
    stream      text        NOT NULL DEFAULT '',
    type        text        NOT NULL,           -- '' is what we have no word for
    name        text        NOT NULL DEFAULT '',-- the provider's own word
    recipient   text        NOT NULL DEFAULT '',
    at          timestamptz NOT NULL,           -- on the provider's clock
    source      text        NOT NULL CHECK (source IN ('webhook', 'lookup', 'response', 'unsubscribe', 'system')),
    provider_message_id text NOT NULL DEFAULT '',
    bounce      jsonb,
    machine     boolean     NOT NULL DEFAULT false,
    url         text        NOT NULL DEFAULT '',
    key         uuid        NOT NULL,           -- of its content; breaks ties in the fold
    raw         bytea,                          -- the provider's payload, only in part 0
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id() -- streams read what is older than every open transaction
) PARTITION BY RANGE (id);
CREATE INDEX event_message ON event (message_id, id) WHERE message_id IS NOT NULL;
CREATE INDEX event_tenant ON event (tenant_id, id);
CREATE INDEX event_origin ON event (origin) WHERE origin <> id;
CREATE INDEX event_stream ON event (tenant_id, xid, id);

-- Each event has two keys, by the provider's own id and by its content: it is new only if both are. Old ones are
-- deleted in small batches.
CREATE TABLE event_key (
    key uuid        PRIMARY KEY,
    at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX event_key_age ON event_key USING brin (at);

-- Tokens that may come with one body only (Mailgun signs the token, not the event).
CREATE TABLE hook_token (
    token uuid        PRIMARY KEY,
    body  bytea       NOT NULL,
    at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX hook_token_age ON hook_token USING brin (at);

-- Events whose message was not known when they came; matched again for a day.
CREATE TABLE orphan (
    event_id   uuid        PRIMARY KEY,
    sent_at    timestamptz, -- when the provider took the message: where to look for it by the provider's id
    retry_at   timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX orphan_retry ON orphan (retry_at);

-- How the receiver of each account is doing.
CREATE TABLE hook_health (
    account_id     integer     PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    last_event_at  timestamptz,
    last_refused_at timestamptz,
    last_refusal   text        NOT NULL DEFAULT '',
    events         bigint      NOT NULL DEFAULT 0,
    refused        bigint      NOT NULL DEFAULT 0
);

-- What events say of a recipient: the greatest (rank, at, key) that came. Rank 0 is none.
ALTER TABLE recipient
    ADD COLUMN event_rank smallint NOT NULL DEFAULT 0,
    ADD COLUMN event_at   timestamptz,
    ADD COLUMN event_key  uuid,
    ADD COLUMN bounce     jsonb;

-- Proof that a call arrived, from elsewhere than its answer.
ALTER TABLE attempt
    ADD COLUMN seen_at timestamptz,
    ADD COLUMN seen_by text CHECK (seen_by IN ('webhook', 'lookup'));

ALTER TABLE unknown
    ADD COLUMN checks     integer     NOT NULL DEFAULT 0, -- look-ups made
    ADD COLUMN busy_until timestamptz NOT NULL DEFAULT '-infinity';

-- Stream '' is every stream. Expired rows do not count; a job deletes them.
ALTER TABLE suppression
    ADD COLUMN stream     text NOT NULL DEFAULT '',
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN account    text NOT NULL DEFAULT '',
    ADD COLUMN message_id uuid,
    ADD COLUMN detail     text NOT NULL DEFAULT '',
    DROP CONSTRAINT suppression_pkey,
    ADD PRIMARY KEY (tenant_id, email, stream);
CREATE INDEX suppression_expiry ON suppression (expires_at) WHERE expires_at IS NOT NULL;

-- Soft bounces in a row; a delivery clears them.
CREATE TABLE soft_bounce (
    tenant_id integer     NOT NULL,
    email     text        NOT NULL,
    n         integer     NOT NULL,
    first_at  timestamptz NOT NULL DEFAULT now(),
    last_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, email)
);

-- Out: where callers want to be told.
CREATE TABLE webhook_endpoint (
    id               uuid        PRIMARY KEY,
    tenant_id        integer     NOT NULL REFERENCES tenant,
    url              text        NOT NULL,
    description      text        NOT NULL DEFAULT '',
    types            text[]      NOT NULL DEFAULT '{}', -- empty: all
    streams          text[]      NOT NULL DEFAULT '{}', -- empty: all
    disabled         boolean     NOT NULL DEFAULT false,
    disabled_reason  text        NOT NULL DEFAULT '',
    failing_since    timestamptz,
    last_success_at  timestamptz,
    secret           bytea       NOT NULL, -- sealed, bound to id and field
    old_secret       bytea,
    old_secret_until timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhook_endpoint_tenant ON webhook_endpoint (tenant_id, id);

-- What is still to be told. A row goes when it was told, or given up.
CREATE TABLE outbox (
    endpoint_id uuid        NOT NULL REFERENCES webhook_endpoint ON DELETE CASCADE,
    event_id    uuid        NOT NULL,
    due         timestamptz NOT NULL DEFAULT now(),
    tries       integer     NOT NULL DEFAULT 0,
    first_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (endpoint_id, event_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);
CREATE INDEX outbox_due ON outbox (endpoint_id, due, event_id);

-- One line per try, partitioned by day on its own id.
CREATE TABLE delivery (
    id          uuid        NOT NULL PRIMARY KEY,
    endpoint_id uuid        NOT NULL,
    event_id    uuid        NOT NULL,
    n           integer     NOT NULL,
    at          timestamptz NOT NULL,
    took_ms     integer     NOT NULL,
    status      integer     NOT NULL DEFAULT 0, -- HTTP, 0 when none came
    outcome     text        NOT NULL,           -- delivered, retry, failed, disabled
    error       text        NOT NULL DEFAULT ''
) PARTITION BY RANGE (id);
CREATE INDEX delivery_endpoint ON delivery (endpoint_id, id);

-- fan_out puts events into the outbox of every endpoint of their tenant that asked for them. What is of no stream is told
-- whatever the streams; what we have no word for is told to nobody.
-- +goose StatementBegin
CREATE FUNCTION fan_out(ids uuid[], tenants integer[], kinds text[], in_streams text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN -- in plpgsql its plan is kept
    INSERT INTO outbox (endpoint_id, event_id)
    SELECT w.id, e.id
    FROM unnest(ids, tenants, kinds, in_streams) AS e(id, tenant_id, type, stream)
    JOIN webhook_endpoint w ON w.tenant_id = e.tenant_id
    WHERE NOT w.disabled AND e.type <> ''
      AND (w.types = '{}' OR e.type = ANY (w.types))
      AND (w.streams = '{}' OR e.stream = '' OR e.stream = ANY (w.streams))
    ON CONFLICT DO NOTHING;
END
$$;
-- +goose StatementEnd

-- new_event_id makes a UUIDv7 (RFC 9562 section 5.7) for events that are made by a statement.
-- +goose StatementBegin
CREATE FUNCTION new_event_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (left(uuid_floor(clock_timestamp())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ensure_partitions(first date, last date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day    date;
    child  text;
    made   integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7381001);
    FOR day IN SELECT generate_series(first, last, interval '1 day')::date LOOP
        FOREACH parent IN ARRAY ARRAY['message', 'body', 'recipient', 'attempt', 'event', 'delivery'] LOOP
            child := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            -- attaching waits for nobody, where PARTITION OF would lock out readers and writers of the parent
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
                uuid_floor(day::timestamp AT TIME ZONE 'UTC'), uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
            IF parent = 'body' THEN -- bodies of up to 8 kB stay in the row; larger ones are not worth compressing twice
                EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160), ALTER payload SET STORAGE EXTERNAL', child);
            ELSE -- results are written in place: room for HOT updates
                EXECUTE format('ALTER TABLE %I SET (fillfactor = 80)', child);
            END IF;
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd

SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, (now() AT TIME ZONE 'UTC')::date + 7);

-- +goose Down
DROP FUNCTION new_event_id();
DROP FUNCTION fan_out(uuid[], integer[], text[], text[]);
DROP TABLE delivery, outbox, webhook_endpoint, soft_bounce, hook_health, orphan, hook_token, event_key, event;
DELETE FROM suppression WHERE stream <> '' OR expires_at IS NOT NULL;
ALTER TABLE suppression DROP CONSTRAINT suppression_pkey, DROP COLUMN stream, DROP COLUMN expires_at, DROP COLUMN account,
    DROP COLUMN message_id, DROP COLUMN detail, ADD PRIMARY KEY (tenant_id, email);
ALTER TABLE unknown DROP COLUMN checks, DROP COLUMN busy_until;
ALTER TABLE attempt DROP COLUMN seen_at, DROP COLUMN seen_by;
ALTER TABLE recipient DROP COLUMN event_rank, DROP COLUMN event_at, DROP COLUMN event_key, DROP COLUMN bounce;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ensure_partitions(first date, last date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day    date;
    child  text;
    made   integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(7381001);
    FOR day IN SELECT generate_series(first, last, interval '1 day')::date LOOP
        FOREACH parent IN ARRAY ARRAY['message', 'body', 'recipient', 'attempt'] LOOP
            child := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child,
                uuid_floor(day::timestamp AT TIME ZONE 'UTC'), uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
            IF parent = 'body' THEN
                EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160), ALTER payload SET STORAGE EXTERNAL', child);
            ELSE
                EXECUTE format('ALTER TABLE %I SET (fillfactor = 80)', child);
            END IF;
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd
