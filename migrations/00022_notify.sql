-- Incidents, and who is told of them. One replica at a time judges (notify_state), counts what the providers report by the hour
-- (outcome_hour), and tells each incident and its end once by each rule (notice).

-- +goose Up
CREATE TABLE notify_rule (
    id           integer     PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name         text        NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    channel      text        NOT NULL CHECK (channel IN ('webhook', 'slack', 'mail')),
    kinds        text[]      NOT NULL DEFAULT '{}', -- of incidents; empty: all
    url          bytea, -- sealed, bound to id and field: whoever knows a URL of Slack may post there
    origin       text        NOT NULL DEFAULT '', -- its scheme and host, for people
    secret       bytea, -- of webhooks, sealed in the same way
    mail_from    text        NOT NULL DEFAULT '',
    mail_to      text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(mail_to) <= 20),
    last_told_at timestamptz,
    last_error   text        NOT NULL DEFAULT '', -- of the last try, "" if it worked
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((channel = 'mail') = (url IS NULL)), CHECK ((channel = 'webhook') = (secret IS NOT NULL))
);

CREATE TABLE incident (
    id        uuid        PRIMARY KEY,
    kind      text        NOT NULL,
    account   text        NOT NULL DEFAULT '',
    subject   text        NOT NULL DEFAULT '', -- what of the account: a sender, a limit
    detail    text        NOT NULL DEFAULT '',
    since     timestamptz NOT NULL, -- when it was first seen
    began_at  timestamptz, -- when it had lasted long enough to be told
    gone_at   timestamptz, -- since when it is not seen any more
    ended_at  timestamptz  -- when it was gone for long enough
);
CREATE UNIQUE INDEX incident_open ON incident (kind, account, subject) WHERE ended_at IS NULL;
CREATE INDEX incident_ended ON incident (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE notice (
    incident_id uuid        NOT NULL REFERENCES incident ON DELETE CASCADE,
    rule_id     integer     NOT NULL REFERENCES notify_rule ON DELETE CASCADE,
    ended       boolean     NOT NULL, -- it tells the end, not the beginning
    id          uuid        NOT NULL, -- the same for all tries
    due         timestamptz NOT NULL DEFAULT now(),
    tries       integer     NOT NULL DEFAULT 0,
    message_id  uuid, -- of the mail that tells it
    tried       text[]      NOT NULL DEFAULT '{}', -- accounts that did not send that mail
    done_at     timestamptz,
    error       text        NOT NULL DEFAULT '',
    PRIMARY KEY (incident_id, rule_id, ended)
);
CREATE INDEX notice_due ON notice (due) WHERE done_at IS NULL;
CREATE INDEX notice_rule ON notice (rule_id);

CREATE TABLE notify_state (
    only_row    boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    owner       uuid,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    counted_to  timestamptz NOT NULL DEFAULT now(),
    books_at    timestamptz, -- when the books were last checked, and what was found by kind
    books       jsonb       NOT NULL DEFAULT '{}'
);
INSERT INTO notify_state DEFAULT VALUES;

CREATE TABLE outcome_hour (
    hour       timestamptz NOT NULL,
    account_id integer     NOT NULL,
    outcome    text        NOT NULL CHECK (outcome IN ('sent', 'delivered', 'bounced', 'complained', 'unsubscribed')),
    n          bigint      NOT NULL,
    last_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, hour, outcome)
);

-- How the calls of the last minutes ended, over all replicas, in spans of ten seconds. Each replica adds what it counted.
CREATE TABLE call_span (
    account_id integer     NOT NULL,
    at         timestamptz NOT NULL,
    accepted   bigint      NOT NULL,
    failed     bigint      NOT NULL, -- transient, or of unknown outcome
    made       bigint      NOT NULL,
    failure    text        NOT NULL DEFAULT '', -- of the last one that failed
    PRIMARY KEY (account_id, at)
);

-- +goose Down
DROP TABLE call_span, outcome_hour, notify_state, notice, incident, notify_rule;
