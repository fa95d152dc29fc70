#!/bin/sh
# Makes the namespaces of node real-1 and stays, so that they stay.
set -eu

if [ "${1:-}" != inside ]; then
	echo $$ >'/sys/fs/cgroup/ai-storage-real-1-a8df679e/cgroup.procs'
	# The cgroup namespace takes its root from where the process is now. Mounts
	# of the machine come in, mounts of the node do not get out.
	exec unshare --mount --cgroup --propagation slave /bin/sh "$0" inside
fi

# The root of a version 2 hierarchy must not hold processes itself.
echo $$ >'/sys/fs/cgroup/ai-storage-real-1-a8df679e/system/cgroup.procs'
umount '/sys/fs/cgroup'
mount -t cgroup2 cgroup '/sys/fs/cgroup'

# Pods may have mounts that propagate among the node's containers.
mount --make-rshared /

mount -t tmpfs -o mode=755 tmpfs '/home/a user/state/nodes/real-1/run'
mkdir '/home/a user/state/nodes/real-1/run/lock' '/home/a user/state/nodes/real-1/run/cni'
# Where /etc/resolv.conf may point to.
if [ -d /run/systemd/resolve ]; then
	mkdir -p '/home/a user/state/nodes/real-1/run/systemd/resolve'
	mount --bind /run/systemd/resolve '/home/a user/state/nodes/real-1/run/systemd/resolve'
fi
mount --rbind '/home/a user/state/nodes/real-1/run' /run
mount --bind '/home/a user/state/nodes/real-1/log' /var/log
mount --bind '/home/a user/state/nodes/real-1/kubelet' /var/lib/kubelet
mount --bind '/home/a user/state/nodes/real-1/agent' /var/lib/ai-storage
mount --bind '/home/a user/state/nodes/real-1/programs' /opt/ai-storage
mount --bind /run/cni /var/lib/cni

: >/run/ai-storage-node
exec sleep infinity
