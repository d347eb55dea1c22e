-- What a project's runs and history were taken with, as JSON: a change of the config is seen by it. Null: not known.
ALTER TABLE store.projects ADD COLUMN filters VARCHAR;
ALTER TABLE store.projects ADD COLUMN history VARCHAR;

-- How many lines the server counted when this was written; null where it does not tell.
ALTER TABLE store.runs ADD COLUMN server_events BIGINT;
ALTER TABLE store.runs ADD COLUMN server_log_lines BIGINT;

-- How far the system metrics, console and metadata file of a run were taken; a run of which nothing was has no row.
CREATE TABLE store.run_extras (
    rid BIGINT,
    events BIGINT,                 -- what the server counted when the system metrics were taken last
    log_lines BIGINT,              -- what it counted when the console was taken last
    log_cursor VARCHAR,            -- the server's cursor from which the console goes on; it leads to line log_from
    log_from BIGINT,
    log_live BOOLEAN,              -- whether the run was live then, so that its last lines may have changed since
    file VARCHAR,                  -- metadata file: 'taken', 'none', or 'not yet' where a live run had none
    attempts BIGINT, next_try_at TIMESTAMP
);

-- What the server's own fields and the file wandb-metadata.json tell of how a run was started, as JSON text.
CREATE TABLE store.run_metadata (rid BIGINT, info VARCHAR, file VARCHAR);

-- Every leaf of the two together; the file wins where both tell.
CREATE TABLE store.metadata_leaves (rid BIGINT, key VARCHAR, kind VARCHAR, number DOUBLE, text VARCHAR);

CREATE TABLE store.console (rid BIGINT, line BIGINT, logged_at TIMESTAMP, level VARCHAR, text VARCHAR);
