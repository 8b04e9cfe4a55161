#!/bin/bash
# A study on a cluster: each task of the job array takes its share of the cells.
#
#     sbatch --array=1-16 examples/slurm_study.sh paper-small-video runs/study atari=data/atari
#     smnm study report runs/study          # at any time
#
# PLAN and DIR as `smnm study` takes them, then data sets as NAME=PATH; DIR must be on a file system
# that all tasks share. What a task did not finish, the same command finishes: cells that are done
# are left alone, and a cell that was stopped goes on.
#
# With submitit, from Python:
#
#     executor = submitit.AutoExecutor("logs")
#     executor.update_parameters(timeout_min=480, gpus_per_node=1, cpus_per_task=8)
#     command = "smnm study PLAN --out DIR --data NAME=PATH --shard".split()
#     with executor.batch():
#         for i in range(16):
#             executor.submit(subprocess.run, [*command, f"{i + 1}/16"], check=True)
#
#SBATCH --job-name=smnm-study
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=08:00:00
# B: to this shell, which smnm takes the place of; without, to steps that srun began.
#SBATCH --signal=B:TERM@120
set -eu
plan=$1 dir=$2
shift 2
exec smnm study "$plan" --out "$dir" ${1:+--data "$@"} \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
