#!/bin/sh
# Makes the roles of sendgate and sets their passwords. The image of Postgres runs it when the volume is new. docs/operations.md,
# "Roles", says how to run it on a volume that is in use.
set -eu
psql --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --no-psqlrc --set=ON_ERROR_STOP=1 --quiet \
  --file=/usr/local/share/sendgate/roles.sql \
  --file=- <<'SQL'
\getenv owner SENDGATE_OWNER_PASSWORD
\getenv serve SENDGATE_SERVE_PASSWORD
ALTER ROLE sendgate_owner LOGIN PASSWORD :'owner';
ALTER ROLE sendgate_serve LOGIN PASSWORD :'serve';
SQL
