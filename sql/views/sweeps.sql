-- The best run has the best finite value of the sweep's metric in its summary; ties by the older run.
CREATE OR REPLACE VIEW main.sweeps AS
WITH best AS (
    SELECT s.entity, s.project, s.sweep_id,
           first(r.run_id ORDER BY
               CASE s.goal WHEN 'maximize' THEN -l.number ELSE l.number END, r.created_at, r.run_id) AS run_id
    FROM store.sweep_records AS s
    JOIN store.run_records AS r
        ON r.entity = s.entity AND r.project = s.project AND r.sweep = s.sweep_id AND r.deleted_at IS NULL
    JOIN store.leaves AS l
        ON l.rid = r.rid AND l.doc = 'summary' AND l.key = s.metric AND l.kind = 'number' AND l.element IS NULL
    WHERE isfinite(l.number)
    GROUP BY s.entity, s.project, s.sweep_id
)
SELECT s.entity, s.project, s.sweep_id, s.name, s.state, s.method, s.description, s.config, s.config_yaml, s.metric,
       s.goal, b.run_id AS best_run, s.best_loss, coalesce(c.runs, 0) AS runs, s.runs_expected, s.prior_runs,
       s.created_at, s.updated_at, s.url, s.deleted_at
FROM store.sweep_records AS s
LEFT JOIN (
    SELECT entity, project, sweep, count(*) AS runs
    FROM store.run_records
    WHERE deleted_at IS NULL
    GROUP BY entity, project, sweep
) AS c ON c.entity = s.entity AND c.project = s.project AND c.sweep = s.sweep_id
LEFT JOIN best AS b ON b.entity = s.entity AND b.project = s.project AND b.sweep_id = s.sweep_id;
