-- Roles and database of a fresh server, run once by the image of PostgreSQL (docker-entrypoint-initdb.d), or by hand:
--   psql --set ON_ERROR_STOP=1 --file deploy/postgres/10-roles.sql      (as a superuser; edit the two paths)
-- The owner migrates and nothing else; the programs log in as a role of their own and act as countersign_app, which may
-- not change or remove what is append-only. Passwords are read from files by psql, so that none is on a command line.
\set ON_ERROR_STOP on
\set owner_password `cat /run/secrets/owner-password`
\set program_password `cat /run/secrets/program-password`
SELECT 1 / length(:'owner_password') AS owner_password_was_read,
       1 / length(:'program_password') AS program_password_was_read;

CREATE ROLE countersign_app NOLOGIN;
CREATE ROLE countersign_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE countersign LOGIN PASSWORD :'program_password';
GRANT countersign_app TO countersign_owner WITH ADMIN OPTION;
GRANT countersign_app TO countersign;

CREATE DATABASE countersign OWNER countersign_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE countersign FROM PUBLIC;
GRANT CONNECT ON DATABASE countersign TO countersign_app;
