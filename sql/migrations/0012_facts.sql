-- What the server tells of a project, as JSON text by the names of its fields. A field that is not there is not known.
ALTER TABLE store.projects ADD COLUMN facts VARCHAR;

-- The same of a server and of whoever holds the key: the fields `viewer` and `serverInfo`.
CREATE TABLE store.server_facts (base_url VARCHAR, facts VARCHAR, told_at TIMESTAMP);

-- The same of runs, beside what stands in store.runs. `system_metrics` is JSON text, which may be `null`, and `keys` what
-- historyKeys told that does not follow from the history: which keys only rose, and those that are no plain numbers.
-- Null: not told. A run has no row until it was asked for.
CREATE TABLE store.run_facts (rid BIGINT, facts VARCHAR, system_metrics VARCHAR, keys VARCHAR);

-- Up to which step the server has exported the history of a run; no row where it has not, or where nobody asked.
CREATE TABLE store.run_exports (rid BIGINT, exported_to BIGINT);

-- Which writer a console line is from; null: not told.
ALTER TABLE store.console ADD COLUMN label VARCHAR;

-- The entry of wandb-metadata.json in the list of files, with the number of files, as JSON text.
ALTER TABLE store.run_metadata ADD COLUMN node VARCHAR;
