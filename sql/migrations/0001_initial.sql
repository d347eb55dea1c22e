-- The tables behind the published relations. Logical keys only: primary keys and indexes make upserts 50 times slower.
-- `rid` is this mirror's own number for a run, given once for (entity, project, run_id) and never reused.
CREATE TABLE store.meta (key VARCHAR, value VARCHAR);

CREATE TABLE store.projects (
    number BIGINT,                 -- this mirror's own number for the project: its wide table is store.wide_<number>
    entity VARCHAR, project VARCHAR,
    covered_to TIMESTAMP,          -- newest change on the server that is mirrored, on the server's clock
    reconciled_at TIMESTAMP,       -- last full listing
    unexplained_runs BIGINT,       -- what the server counted, where the listing did not explain its count
    last_attempt_at TIMESTAMP, last_success_at TIMESTAMP, last_error VARCHAR
);

CREATE TABLE store.runs (
    rid BIGINT, entity VARCHAR, project VARCHAR, run_id VARCHAR, storage_id VARCHAR,
    name VARCHAR, state VARCHAR, created_at TIMESTAMP, heartbeat_at TIMESTAMP, updated_at TIMESTAMP, duration_s DOUBLE,
    username VARCHAR, group_name VARCHAR, job_type VARCHAR, sweep VARCHAR, notes VARCHAR, description VARCHAR,
    tags VARCHAR,                  -- comma-joined; one row a tag in store.run_tags
    git_commit VARCHAR, host VARCHAR, url VARCHAR,
    config VARCHAR, config_meta VARCHAR, summary VARCHAR,   -- JSON text; NaN and infinities as bare tokens
    server_rows BIGINT, server_last_step BIGINT,            -- what the server said of the history when this was written
    deleted_at TIMESTAMP, synced_at TIMESTAMP,
    revision BIGINT                -- higher each time the documents are written; the wide tables are kept current by it
);

CREATE TABLE store.run_tags (rid BIGINT, position BIGINT, tag VARCHAR);

-- Every node of config and summary. `element` is null for the value at `key` itself, else the index in the list there.
CREATE TABLE store.leaves (
    rid BIGINT, doc VARCHAR, key VARCHAR, kind VARCHAR, number DOUBLE, text VARCHAR, element BIGINT
);

-- How many runs of a project hold a value at a key, and how many of these values are of which kind.
CREATE TABLE store.leaf_keys (
    project_number BIGINT, doc VARCHAR, key VARCHAR, runs BIGINT, numbers BIGINT, bools BIGINT, nulls BIGINT
);

-- The columns of each wide table beside rid and revision; `position` orders them in the view.
CREATE TABLE store.wide_columns (
    project_number BIGINT, position BIGINT, doc VARCHAR, key VARCHAR, type VARCHAR, name VARCHAR
);

-- The cursor of each run's history.
CREATE TABLE store.run_history (
    rid BIGINT, rows BIGINT, last_step BIGINT,
    refresh BOOLEAN,               -- all of it is to be pulled again and swapped in at once
    attempts BIGINT, next_try_at TIMESTAMP, error VARCHAR
);

CREATE TABLE store.history_tail (
    rid BIGINT, step BIGINT, key VARCHAR, value DOUBLE, text VARCHAR
);

-- A run that is pulled afresh gathers here, unseen by readers, until it is whole.
CREATE TABLE store.history_staging (
    rid BIGINT, step BIGINT, key VARCHAR, value DOUBLE, text VARCHAR
);

-- The cursor of what is gathered there: how many history lines, and up to which step.
CREATE TABLE store.staged (rid BIGINT, rows BIGINT, last_step BIGINT);

CREATE TABLE store.system_metrics (
    entity VARCHAR, project VARCHAR, run_id VARCHAR, step BIGINT, key VARCHAR, value DOUBLE, text VARCHAR
);

CREATE TABLE store.history_keys (
    rid BIGINT, key VARCHAR, rows BIGINT, first_step BIGINT, last_step BIGINT, min DOUBLE, max DOUBLE, last DOUBLE
);

-- `path` is relative to the folder of segments. A retired one is no longer read, and deleted after a time of grace.
CREATE TABLE store.segments (
    segment_id BIGINT, path VARCHAR, entity VARCHAR, project VARCHAR, level BIGINT, value_count BIGINT, bytes BIGINT,
    created_at TIMESTAMP, retired_at TIMESTAMP
);

-- Which runs a segment holds. Values of a replaced run are hidden at once, and left out when the segment is rewritten.
CREATE TABLE store.segment_runs (segment_id BIGINT, run_id VARCHAR, value_count BIGINT, replaced BOOLEAN);

CREATE TABLE store.run_changes (
    entity VARCHAR, project VARCHAR, run_id VARCHAR, seen_at TIMESTAMP, field VARCHAR, old VARCHAR, new VARCHAR
);
