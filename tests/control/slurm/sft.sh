#!/bin/bash
#SBATCH --job-name=demo-sft
#SBATCH --output=/shared/runs/demo/slurm/%x-%j.txt
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --partition=gpu
#SBATCH --account=lab-42
#SBATCH --time=2-00:00:00
#SBATCH --mem=900G
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=h100:8
#SBATCH --signal=B:USR1@180
#SBATCH --constraint=ib

cd /shared || exit 1
module load cuda
source 'my env/bin/activate'

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
told=0 stopped=0
trap 'told=1; kill -TERM "$work"' USR1
trap 'stopped=1; kill -TERM "$work"' TERM  # scancel
srun --ntasks=2 --ntasks-per-node=1 --cpus-per-task=64 --kill-on-bad-exit=1 bash -c 'MACHINE_RANK=$SLURM_NODEID exec /env/bin/python -m llmkit.cli.main run /shared/runs/demo/slurm/recipe.yaml --step sft' &
work=$!
# told before it had a number
[ "$told$stopped" = 00 ] || kill -TERM "$work"
# a signal ends a wait, not the work
while kill -0 "$work" 2> /dev/null; do wait "$work"; done
wait "$work"; code=$?
left=$((10 - ${SLURM_RESTART_COUNT:-0}))
if [ "$told" = 1 ] && [ "$stopped" = 0 ] && [ "$code" != 0 ] && [ "$left" -gt 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
