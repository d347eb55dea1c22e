-- A long history that is replaced gathers in segments; their values of the run count as replaced until it is whole.
CREATE TABLE store.staged_segments (rid BIGINT, segment_id BIGINT);

-- What will be in history_keys of a run whose history is gathered.
CREATE TABLE store.staged_keys (
    rid BIGINT, key VARCHAR, rows BIGINT, first_step BIGINT, last_step BIGINT, min DOUBLE, max DOUBLE, last DOUBLE
);

-- Nothing is counted of what was gathered before: it is gathered again.
DELETE FROM store.history_staging;
DELETE FROM store.staged;
