#!/bin/bash
#SBATCH --job-name=demo-eval-sft
#SBATCH --output=/work/runs/demo/slurm/%x-%j.txt
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --partition=gpu
#SBATCH --account=lab-42
#SBATCH --time=12:00:00
#SBATCH --mem=100G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=h100:1
#SBATCH --signal=B:TERM@180
#SBATCH --exclusive

cd /work || exit 1
module load cuda
source 'my env/bin/activate'

told=0
trap 'told=1; kill -TERM "$work"' TERM
/env/bin/python -m llmkit.cli.main run /work/runs/demo/slurm/recipe.yaml --step eval-sft &
work=$!
wait "$work"; code=$?
# a signal ends the first wait, not the work
if [ "$told" = 1 ]; then wait "$work"; code=$?; fi
if [ "$told" = 1 ] && [ "$code" != 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 10 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
