-- Sweeps of projects. `facts` is what the server returned, by the names of its fields; the other columns are read from it.
CREATE TABLE store.sweep_records (
    entity VARCHAR, project VARCHAR, sweep_id VARCHAR,
    name VARCHAR, state VARCHAR, method VARCHAR, description VARCHAR,
    config VARCHAR,                -- JSON text of the YAML text; null if that cannot be read
    config_yaml VARCHAR, metric VARCHAR, goal VARCHAR, best_loss DOUBLE, runs_expected BIGINT,
    prior_runs VARCHAR,            -- JSON list of run ids; null if the server does not return them
    created_at TIMESTAMP, updated_at TIMESTAMP, url VARCHAR, facts VARCHAR, deleted_at TIMESTAMP
);

-- Reports and saved views of projects, by the server's own type of them; `spec` is JSON text.
CREATE TABLE store.view_records (
    entity VARCHAR, project VARCHAR, view_id VARCHAR, view_type VARCHAR, name VARCHAR, title VARCHAR,
    description VARCHAR, author VARCHAR, created_at TIMESTAMP, updated_at TIMESTAMP, spec VARCHAR, url VARCHAR,
    facts VARCHAR,
    asked_at TIMESTAMP,            -- the server's time when the spec was requested
    deleted_at TIMESTAMP
);

-- Lists of what belongs to a project: 'sweeps' and 'views'. `total` is a number that the server counts and its list did
-- not explain. `error` is the last failure to pull the list.
CREATE TABLE store.listings (
    entity VARCHAR, project VARCHAR, kind VARCHAR,
    listed_at TIMESTAMP, total BIGINT, attempts BIGINT, next_try_at TIMESTAMP, error VARCHAR
);
