"""Facts about what the official client's `wandb.Api` answers, each established three ways.

The client's own tests of its public API say what it promises. What they say of runs, projects, sweeps and files stands
here as questions of our own (reading.py, changes.py), which three processes answer: `wandb.Api` on the sample server,
`wandb.Api` on the mirror's endpoint over the mirror of that server, and `mirror.Api` over the same mirror. Their answers
are held against each other and against the right one; where they differ by intention, the table DIFFERENT says why.

| the client's tests | here |
| --- | --- |
| system_tests/test_core/test_public_api.py | paths, runs, history, lists, projects, sweeps, files: reading.py; the rest: changes.py |
| system_tests/test_api/test_public_api_history.py | scans and exports: reading.py |
| system_tests/test_api/test_public_api_run_summary.py | `a_summary_key_is_deleted` |
| system_tests/test_sweep/test_sweep_public_api.py | sweeps: reading.py, and how they are made: changes.py |
| unit_tests/test_public_api/test_console_logs.py | console: reading.py |
| unit_tests/test_public_api/test_history.py | `scan_across_gaps` |
| unit_tests/test_public_api/test_public_api.py | paths, projects: reading.py |
| unit_tests/test_public_api/test_reports.py | reports: reading.py |
| unit_tests/test_public_api/test_runs.py | documents of runs, metadata, addresses: reading.py; stop, upload: changes.py |
| unit_tests/test_public_api/test_summary.py | `a_nested_summary`, `a_summary_is_updated` |
| unit_tests/test_public_api/test_sweeps.py | `a_run_of_a_sweep_is_enqueued` |

Left out, since they are about something else than what is mirrored: artifacts, registries, automations, custom
charts, run queues, teams, and users with their API keys. Left out, since they are about how the client is built and the
same on every server: how keys are found and checked (tty, explicit, federated), the User-Agent, what its requests to its
own core process look like, what its constructors make of attributes that no server sends (numbers as config, projects
without an id, an internal id that is no number), its download logger.
"""
