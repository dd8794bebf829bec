#!/bbin/busybox sh
# The first process of the guest: makes the machine one that tests expect and
# runs /egate/run. What it prints goes to the console; ttyS1 tells the runner
# how far it came: "ready", then "exit CODE".
# shellcheck shell=dash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bbin

if ! [ -e /egate/complete ]; then
	echo "this root is not complete: the machine needs more memory"
	busybox poweroff -f
fi
busybox mkdir -p /proc /sys /dev /run /tmp /root
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
# The kernel mounts devtmpfs by itself only on a root that is a disk.
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t tmpfs -o mode=755 tmpfs /run
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mount -t debugfs debugfs /sys/kernel/debug
busybox mount -t tracefs tracefs /sys/kernel/tracing
# Not mounted: bpffs. egate mounts it where it finds none.
busybox ln -s /proc/self/fd /dev/fd
busybox ln -s /proc/mounts /etc/mtab
busybox hostname egate-vm
busybox ip link set lo up

busybox modprobe virtio_pci
busybox modprobe virtio_console
# Its device file is made by the module; without udev nothing loads it on demand.
busybox modprobe tun
# The port's file is there a moment before the port can be opened. It can be
# opened once: whoever writes inherits it. "command" keeps a failed exec from
# ending the shell.
tries=0
until command exec 3>/dev/vport0p1; do
	tries=$((tries + 1))
	if [ $tries -gt 500 ]; then
		echo "no virtio port for the output: ended"
		busybox poweroff -f
	fi
	busybox usleep 20000
done

echo ready >/dev/ttyS1
busybox sh /egate/run </dev/null >&3 2>&1 3>&-
echo "exit $?" >/dev/ttyS1
busybox poweroff -f
