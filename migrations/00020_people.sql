-- People who sign in at the dashboard: what they prove themselves with, their one-time links and their sessions.

-- +goose Up
CREATE TABLE person (
    id           integer     PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name         text        NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9._-]{0,39}$'),
    role         text        NOT NULL CHECK (role IN ('viewer', 'support', 'operator', 'admin')),
    password     text        NOT NULL DEFAULT '', -- argon2id in PHC form; '' until the first link is used
    totp         bytea, -- secret of the authenticator, sealed
    totp_step    bigint      NOT NULL DEFAULT 0, -- of the newest code that was used: a code counts once
    networks     cidr[]      NOT NULL DEFAULT '{}' CHECK (cardinality(networks) <= 8), -- of the last sign-ins, newest first
    created_at   timestamptz NOT NULL DEFAULT now(),
    disabled_at  timestamptz,
    signed_in_at timestamptz,
    CHECK ((password = '') = (totp IS NULL))
);

-- Recovery codes that are left. A used one is deleted.
CREATE TABLE person_code (
    person_id integer NOT NULL REFERENCES person,
    hash      bytea   NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (person_id, hash)
);

CREATE TABLE person_link (
    hash       bytea       PRIMARY KEY CHECK (octet_length(hash) = 32), -- of the token
    person_id  integer     NOT NULL REFERENCES person,
    enter      boolean     NOT NULL DEFAULT false, -- signs in without a password; only `sendgate dev` makes and takes these
    expires_at timestamptz NOT NULL
);
CREATE INDEX person_link_person ON person_link (person_id);

CREATE TABLE person_session (
    hash       bytea       PRIMARY KEY CHECK (octet_length(hash) = 32), -- of the token
    person_id  integer     NOT NULL REFERENCES person,
    network    cidr,
    agent      text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX person_session_person ON person_session (person_id);

-- +goose Down
DROP TABLE person_session, person_link, person_code, person;
