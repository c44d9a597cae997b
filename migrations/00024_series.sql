-- What the operators' plots show: how often something was counted in a minute and in an hour, all replicas together. Each
-- replica adds what its own counters gained.

-- +goose Up
CREATE TABLE series (
    step     int NOT NULL CHECK (step IN (60, 3600)), -- seconds
    measure  text NOT NULL,
    at       timestamptz NOT NULL, -- where the step begins
    account  text NOT NULL,        -- '' for what is counted for no account
    stream   text NOT NULL,        -- '' likewise
    detail   text NOT NULL,        -- the class of a bounce, the upper bound of a time; '' for neither
    n        bigint NOT NULL,
    PRIMARY KEY (step, measure, at, account, stream, detail)
) WITH (fillfactor = 70);

-- +goose Down
DROP TABLE series;
