"""A marimo notebook over the published file."""

import marimo

app = marimo.App()


@app.cell
def _():
    import os

    import duckdb
    import marimo as mo

    with duckdb.connect(os.environ["MIRROR_FILE"], read_only=True) as connection:
        question = "select count(*) from runs where project = 'still' and state = 'finished'"
        count = connection.execute(question).fetchone()[0]
    mo.md(f"finished runs: {count}")
    return


if __name__ == "__main__":
    app.run()
