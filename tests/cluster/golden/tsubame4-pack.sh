#!/bin/bash
#$ -N count-0
#$ -l cpu_4=1
#$ -l h_rt=01:00:00
#$ -j y
#$ -o /gs/user/rethesis/log0
#$ -r y
#$ -S /bin/bash

cd /gs/user/rethesis || exit 1
export RETHESIS_DEADLINE=$(($(date +%s) + 3600)) RETHESIS_MARGIN=120
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
export RETHESIS_DATA=/gs/user/rethesis/data
source /etc/profile.d/modules.sh
module load openmpi
trap 'kill -USR1 $(jobs -p) 2>/dev/null' USR1
trap 'kill -TERM $(jobs -p) 2>/dev/null' TERM
python -m common.study.job runs/0 >>/gs/user/rethesis/log0 2>&1 &
python -m common.study.job runs/1 >>/gs/user/rethesis/log1 2>&1 &
python -m common.study.job runs/2 >>/gs/user/rethesis/log2 2>&1 &
python -m common.study.job runs/3 >>/gs/user/rethesis/log3 2>&1 &
while [ -n "$(jobs -rp)" ]; do wait; done
