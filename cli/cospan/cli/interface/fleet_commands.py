"""Commands that run fleets: run, coordinator, agent, relay, stop."""

from pathlib import Path
from typing import Annotated

import typer

from cospan.cli.interface import options as o
from cospan.cli.interface import setting_options as s
from cospan.cli.interface.completion import ENGINES, TRACKERS, WORKLOADS, one_of, run_folders
from cospan.cli.interface.setting_options import with_settings


@with_settings(
    s.RUN_AGENTS,
    s.PROCESSES,
    s.RUN_ROUNDS,
    s.RUN["seed"],
    *s.LEARNING_RULE,
    s.BASELINE,
    s.MIN_STEPS_PER_ROUND,
    s.AGENT_RESTARTS,
    s.MEMORY_GIB,
    *s.BETTER_POLICIES,
    *s.WAITING,
    *s.SECURE_SUMS,
    *s.TIMEOUTS,
    s.RUN_START,
    s.RUN_PORT,
    *s.DASHBOARD,
    s.ALLOWED_HOSTS,
    s.CHECKPOINT_INTERVAL,
)
def run(
    given: o.Given,
    workload: o.WorkloadOrSpec = None,
    *,
    logs: o.Logs = None,
    mapping: o.LogMapping = None,
    observation: o.Observation = None,
    reward: o.Reward = None,
    time: o.Time = None,
    follow: o.Follow = False,
    in_process: Annotated[
        bool, o.file_option("--in-process", "No processes and no network; the same basis, bit for bit.", None)
    ] = False,
    engine: Annotated[
        str | None,
        o.fleet_option(
            "--engine",
            "What starts the agent processes: local, or ray on the nodes of a cluster.",
            "NAME",
            show_default="local; with --resume that of the run",
            autocompletion=one_of(ENGINES),
        ),
    ] = None,
    address: Annotated[
        str | None,
        o.fleet_option(
            "--address",
            "The Ray cluster, as HOST:PORT; local starts one on this machine for the run alone.",
            "HOST:PORT",
            show_default="RAY_ADDRESS, else the cluster that this machine is a node of",
        ),
    ] = None,
    groups: Annotated[
        int | None,
        o.fleet_option("--groups", "The same as --processes.", "G"),
    ] = None,
    allow_losses: Annotated[
        bool,
        o.fleet_option(
            "--allow-losses", "Exit with 0, not 3, if the run ends with fewer agents than it began with.", None
        ),
    ] = False,
    track: Annotated[
        list[str] | None,
        o.file_option(
            "--track",
            "Also write the rounds to this tracker, tensorboard or mlflow; may be repeated.",
            "NAME",
            autocompletion=one_of(TRACKERS),
        ),
    ] = None,
    output: o.OutputFolder = None,
    resume: Annotated[
        Path | None,
        o.file_option(
            "--resume",
            "Resume the run of this folder, for example runs/latest, with the bits of an uninterrupted run.",
            "RUN",
        ),
    ] = None,
    spec: o.Spec = None,
    config: o.Config = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Run a coordinator and N agents on this machine: live progress, a summary, a run folder."""
    from cospan.cli.commands.run import RunOptions, run_here
    from cospan.cli.engines.choice import engine_of, with_groups
    from cospan.cli.settings.log_options import columns_of, mapping_kept, workload_or_logs

    chosen_engine = engine_of(engine, address, in_process=in_process, resuming=resume is not None)
    given = with_groups(given, groups)
    columns = columns_of(logs, mapping, observation, reward, time)
    if columns is not None and logs is not None:
        mapping = mapping_kept(logs, columns, output, quiet=quiet)
    chosen = RunOptions(
        workload_or_logs(workload, logs, mapping, follow=follow),
        spec,
        output,
        resume=resume,
        in_process=in_process,
        json=json,
        quiet=quiet,
        debug=debug,
        allow_losses=allow_losses,
        track=tuple(track or ()),
        engine=chosen_engine,
    )
    raise typer.Exit(run_here(chosen, given, config))


@with_settings(
    s.RUN["feature_dim"],
    s.RUN["fingerprint"],
    s.RUN["agents"],
    s.RUN["rounds"],
    s.RUN["seed"],
    *s.LEARNING_RULE,
    *s.BETTER_POLICIES,
    *s.WAITING,
    *s.SECURE_SUMS,
    *s.TIMEOUTS,
    s.COORDINATOR_START,
    s.HOST,
    s.PORT,
    s.ADDRESS_FILE,
    s.INSECURE,
    *s.DASHBOARD,
    s.ALLOWED_HOSTS,
    s.METRICS,
    s.TRACES,
    *s.TLS,
    s.NEW_RUN,
    s.ONCE,
    s.CHECKPOINT_INTERVAL,
)
def coordinator(
    given: o.Given,
    workload: Annotated[
        str | None,
        o.fleet_option(
            "--workload",
            "The workload that gives d, r, L and the fingerprint of the features.",
            None,
            autocompletion=one_of(WORKLOADS),
        ),
    ] = None,
    run_folder: Annotated[
        Path | None,
        o.file_option(
            "--run-folder",
            "Folder of the run. A run in it is resumed; otherwise it must be empty or not exist.",
            "FOLDER",
            autocompletion=run_folders,
        ),
    ] = None,
    runs_folder: Annotated[
        Path | None,
        o.file_option(
            "--runs-folder",
            "Folder in which each run gets a folder; the newest (`latest`) is resumed unless it is over.",
            "FOLDER",
        ),
    ] = None,
    *,
    spec: o.Spec = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
    follow_stdin: o.FollowStdin = False,
    reopen: Annotated[
        bool,
        typer.Option("--reopen", help="Started by `cospan run`: also a run that is over is resumed.", hidden=True),
    ] = False,
) -> None:
    """Run a coordinator: wait for agents, average their gradients, send out the basis."""
    from cospan.cli.commands.coordinator import CoordinatorOptions, serve_here

    chosen = CoordinatorOptions(
        workload, spec, run_folder, runs_folder, json=json, follow_stdin=follow_stdin, reopen=reopen
    )
    raise typer.Exit(serve_here(chosen, given, config))


@with_settings(
    s.INDEX,
    s.IDS,
    s.SHARD,
    s.SHARD_AGENTS,
    s.COORDINATOR,
    s.PROGRESS_TIMEOUT,
    s.ENGINE_PATIENCE,
    *s.TLS,
    s.BASELINE,
    s.SHARE_TD_ERROR,
    s.MIN_STEPS_PER_ROUND,
    s.REQUIRE_SECURE_SUMS,
    s.MAX_EPSILON,
    s.MEMORY_GIB,
    s.CHECKPOINT_SECONDS,
)
def agent(
    given: o.Given,
    workload: Annotated[
        str | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="As the run's: a built-in workload, or package.module:name.",
            show_default="that of --mapping",
            autocompletion=one_of(WORKLOADS),
        ),
    ] = None,
    agent_id: Annotated[
        str | None,
        o.fleet_option("--id", "The agent's name; a number N stands for site-N.", "ID"),
    ] = None,
    output: Annotated[
        Path | None,
        o.file_option(
            "--output",
            "File for the result (npz), or a folder, where it has the agent's name; a group needs a folder. "
            "A file of the same run and agent is resumed.",
        ),
    ] = None,
    *,
    log: Annotated[
        str | None,
        o.file_option(
            "--log",
            "Learn from the log of this site: a file, or a folder of its files; with --ids those of all sites.",
            "DATA",
        ),
    ] = None,
    mapping: o.LogMapping = None,
    follow: o.Follow = False,
    feed: o.FeedSource = None,
    feed_secret_file: o.FeedSecret = None,
    feed_limit: o.FeedLimit = 100_000,
    feed_step: o.FeedStep = None,
    reward_at: o.RewardAt = None,
    reward_delay: o.RewardDelay = 100,
    sticky_site: Annotated[
        bool,
        o.fleet_option(
            "--sticky-site",
            "Ask for a free site under this host's name: an agent restarted here gets the same one.",
            None,
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        o.file_option("--resume", "Another file of --output, of the same run and agent, to resume from."),
    ] = None,
    config: o.Config = None,
    json: o.Json = False,
    debug: o.Debug = False,
    follow_stdin: o.FollowStdin = False,
) -> None:
    """Run an agent: learn the value function of its site until the run is over.

    Without --id and --index the coordinator assigns a free site. With --ids or --shard it is a group of agents.
    """
    from cospan.cli.commands.agent import AgentOptions, take_part
    from cospan.cli.settings.log_options import workload_or_log

    named = workload_or_log(workload, log, mapping, follow=follow, feed=feed, group="ids" in given)
    told = None
    if feed is not None:
        from cospan.cli.feeds.opening import FeedOptions

        told = FeedOptions(feed, feed_secret_file, feed_limit, reward_delay, feed_step, reward_at, output)
    chosen = AgentOptions(
        named, agent_id, sticky_site, output, resume, json=json, follow_stdin=follow_stdin, feed=told
    )
    raise typer.Exit(take_part(chosen, given, config))


@with_settings(
    s.UPSTREAM,
    s.LEVEL,
    s.RELAY_AGENTS,
    s.HOST,
    s.PORT,
    s.INSECURE,
    s.METRICS,
    s.ALLOWED_HOSTS,
    s.PROGRESS_TIMEOUT,
    s.ENGINE_PATIENCE,
    s.MIN_STEPS_PER_ROUND,
    *s.TLS,
    *s.UPSTREAM_TLS,
)
def relay(given: o.Given, config: o.Config = None, json: o.Json = False, debug: o.Debug = False) -> None:
    """Run a relay: sum its agents' gradients exactly and forward one upload per round."""
    from cospan.cli.commands.relay import relay_here

    raise typer.Exit(relay_here(given, config, json=json))


@with_settings(s.COORDINATOR, *s.TLS)
def stop(
    given: o.Given,
    *,
    cause: Annotated[
        str, typer.Option("--cause", help="Why, in one sentence, for the agents.", metavar="TEXT")
    ] = "",
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """End a run in order: all agents are told, and the results are kept."""
    from cospan.cli.commands.stop import stop_run_there

    raise typer.Exit(stop_run_there(given, config, cause=cause))
