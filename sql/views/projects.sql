-- Only runs that exist on the server are counted. lag_s is computed when the view is read. It is NULL before the first
-- successful pass, and if that is more than a minute in the future: then a clock was set back, and the lag is unknown.
CREATE OR REPLACE VIEW main.projects AS
SELECT
    p.entity, p.project,
    coalesce(c.runs, 0) AS runs, coalesce(c.running, 0) AS running, coalesce(c.history_rows, 0) AS history_rows,
    p.last_success_at, p.last_error,
    CASE
        WHEN epoch_us(p.last_success_at) - epoch_us(now()) <= 60000000
        THEN greatest(0, epoch_us(now()) - epoch_us(p.last_success_at)) / CAST(1000000 AS DOUBLE)
    END AS lag_s
FROM store.project_records AS p
LEFT JOIN (
    SELECT
        r.entity, r.project, count(*) AS runs, count(*) FILTER (WHERE r.state = 'running') AS running,
        CAST(sum(h.rows) AS BIGINT) AS history_rows
    FROM store.run_records AS r
    LEFT JOIN store.run_history AS h ON h.rid = r.rid
    WHERE r.deleted_at IS NULL
    GROUP BY r.entity, r.project
) AS c ON c.entity = p.entity AND c.project = p.project;
