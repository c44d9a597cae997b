-- +goose Up
ALTER TABLE api_key ADD COLUMN networks cidr[] NOT NULL DEFAULT '{}' CHECK (cardinality(networks) <= 32); -- empty: from anywhere

-- +goose Down
ALTER TABLE api_key DROP COLUMN networks;
