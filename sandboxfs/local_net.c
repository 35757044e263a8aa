/*
 * The network of a local sandbox: slirp4netns attached to its namespace, and what it may reach through it.
 * Part of the local driver (local.h). Starts ip(8) and slirp4netns through the spawner; no netlink of its own.
 *
 * Two walls, made before the tap device exists, and neither can be changed from inside: the namespace belongs to a
 * user namespace above the sandbox's own, in which it has no capability.
 * - prohibit routes give programs a plain answer (EACCES) at once;
 * - they do not hold for a socket that names its device: with SO_BINDTODEVICE, IP_PKTINFO or IP_MULTICAST_IF the kernel takes a
 *   destination without a route to be on the link (ip_route_output_key_hash_rcu), and multicast needs no neighbour entry that slirp4netns
 *   would refuse. Policies of xfrm are asked for every packet that leaves, so the same ranges are blocked there once more.
 * Where the kernel has no xfrm the sandbox gets no network rather than half a wall. IPv6 is off in slirp4netns, and blocked as a whole.
 *
 * The host's addresses are those of its interfaces at the start; private and link-local ones are covered by the ranges in any case
 * (net=internet). The one address of the tap's network that answers is the DNS forwarder, on port 53.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "local.h"
#include "log.h"

enum { READY_MS = 10000, LOOK_MS = 100, DNS_HOST = 3 };

/* Ranges that no program in a sandbox has business with; lan: also with net=lan. */
static const struct {
	const char *range;
	bool lan;
} closed[] = {
	{"0.0.0.0/8", true},
	{"10.0.0.0/8", false},
	{"100.64.0.0/10", false},
	{"169.254.0.0/16", true},
	{"172.16.0.0/12", false},
	{"192.0.0.0/24", false},
	{"192.168.0.0/16", false},
	{"198.18.0.0/15", false},
	{"224.0.0.0/4", true},
	{"240.0.0.0/4", true},
};

/* --- the plan --- */

/* A /24 that no interface of the host touches: slirp4netns answers for it, so that the real one could not be reached. */
static uint32_t pick_subnet(const struct ifaddrs *all)
{
	static const uint32_t choice[] = {0x0ad32500 /* 10.211.37 */, 0xac1db500 /* 172.29.181 */,
		0xc0a8d300 /* 192.168.211 */, 0x0a000200 /* 10.0.2 */};
	for (size_t i = 0; i < sizeof choice / sizeof *choice; i++) {
		bool clash = false;
		for (const struct ifaddrs *a = all; a && !clash; a = a->ifa_next) {
			if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || !a->ifa_netmask)
				continue;
			struct sockaddr_in address, mask;
			memcpy(&address, a->ifa_addr, sizeof address);
			memcpy(&mask, a->ifa_netmask, sizeof mask);
			uint32_t both = ntohl(mask.sin_addr.s_addr) & 0xffffff00;
			clash = ((ntohl(address.sin_addr.s_addr) ^ choice[i]) & both) == 0;
		}
		if (!clash)
			return choice[i];
	}
	return 0;
}

static void say_none(struct net_plan *p, const char *why)
{
	p->attach = false;
	snprintf(p->word, sizeof p->word, "none: %s", why); /* cut: a sentence for a person */
}

void local_net_plan(const struct local *l, struct net_plan *p)
{
	*p = (struct net_plan){0};
	if (l->options->net == NET_NONE) {
		snprintf(p->word, sizeof p->word, "none");
		return;
	}
	struct stat st;
	if (!l->slirp)
		return say_none(p, "slirp4netns is not installed");
	if (!l->ip)
		return say_none(p, "ip (iproute2) is not installed");
	if (stat("/dev/net/tun", &st) < 0)
		return say_none(p, "there is no /dev/net/tun");
	/* Root gives its sandboxes a node of their own: spawn.tun. */
	if (!l->drop && access("/dev/net/tun", R_OK | W_OK) < 0)
		return say_none(p, "/dev/net/tun is closed to this user");
	struct ifaddrs *all = NULL;
	if (getifaddrs(&all) < 0)
		return say_none(p, "the addresses of this host cannot be listed");
	p->subnet = pick_subnet(all);
	freeifaddrs(all);
	if (!p->subnet)
		return say_none(p, "this host's own networks cover every range there is for a sandbox");
	p->attach = true;
	snprintf(p->word, sizeof p->word, "%s", l->options->net == NET_LAN ? "lan" : "internet");
	struct in_addr dns = {htonl(p->subnet | DNS_HOST)};
	if (!inet_ntop(AF_INET, &dns, p->dns, sizeof p->dns))
		say_none(p, "no address");
}

/* --- the walls --- */

static void close_range_words(struct buf *b, const char *range)
{
	buf_printf(b, "route add prohibit %s\n", range);
	buf_printf(b, "xfrm policy add dir out dst %s priority 2000 action block\n", range);
}

/* What `ip -batch` is to do in the namespace. */
static int walls(const struct local *l, const struct net_plan *p, struct buf *b)
{
	struct ifaddrs *all;
	if (getifaddrs(&all) < 0)
		return -errno;
	/* by their numbers, UDP and TCP: a small system has no /etc/protocols */
	for (const char *const *proto = (const char *const[]){"17", "6", NULL}; *proto; proto++)
		buf_printf(b,
			"xfrm policy add dir out dst %s/32 proto %s dport 53 priority 1000 action allow\n",
			p->dns, *proto);
	for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
		if (closed[i].lan || l->options->net != NET_LAN)
			close_range_words(b, closed[i].range);
	/* With net=lan the range that holds the tap's network is open: close that network, but for the forwarder above. */
	struct in_addr tap = {htonl(p->subnet)};
	char text[INET_ADDRSTRLEN];
	if (inet_ntop(AF_INET, &tap, text, sizeof text))
		buf_printf(b, "xfrm policy add dir out dst %s/24 priority 1500 action block\n", text);
	for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
		if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || a->ifa_flags & IFF_LOOPBACK)
			continue;
		struct sockaddr_in address;
		memcpy(&address, a->ifa_addr, sizeof address);
		if (!inet_ntop(AF_INET, &address.sin_addr, text, sizeof text))
			continue;
		char range[INET_ADDRSTRLEN + 3];
		snprintf(range, sizeof range, "%s/32", text);
		/* Two interfaces may carry one address: replace does not mind. */
		buf_printf(b, "route replace prohibit %s\n", range);
		buf_printf(b, "xfrm policy update dir out dst %s priority 1800 action block\n", range);
	}
	freeifaddrs(all);
	return buf_error(b);
}

/* Runs `ip -batch` in the namespaces: 0, or an errno with the reason in why. */
static int run_ip(const struct local *l, int userns, int netns, const char *family,
	const struct buf *batch, struct buf *why)
{
	AUTO_FD int file = -1;
	int err = memory_file("batch", batch->data, batch->size, &file);
	if (err)
		return err;
	const struct spawn_fd in = {file, 0};
	char *const argv[] = {l->ip, (char *)family, "-batch", "-", NULL};
	struct spawn what = {.path = l->ip,
		.argv = argv,
		.fds = &in,
		.nfds = 1,
		.collect = true,
		.cwd = -1,
		.userns = userns,
		.netns = netns,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid};
	struct child *child;
	const char *stage = "";
	int status;
	err = spawner_start(l->spawner, &what, &child, &stage);
	if (err) {
		buf_printf(why, "ip: %s: %s", stage, strerror(-err));
		return err;
	}
	err = child_wait(child, call_now_ms() + READY_MS, &status);
	if (err)
		child_signal(child, SIGKILL);
	else if (status)
		child_output(child, why);
	child_put(child);
	return err ? err : status ? -EIO : 0;
}

static int raise_walls(
	const struct local *l, const struct net_plan *p, int userns, int netns, struct buf *why)
{
	AUTO_BUF batch = BUF_INIT;
	AUTO_BUF batch6 = BUF_INIT;
	AUTO_BUF ignored = BUF_INIT;
	int err = walls(l, p, &batch);
	if (!err)
		err = run_ip(l, userns, netns, "-4", &batch, why);
	if (err)
		return err;
	/* slirp4netns drops IPv6 by itself, and the kernel may have none: no failure. */
	buf_str(&batch6, "xfrm policy add dir out src ::/0 dst ::/0 priority 2000 action block\n");
	err = run_ip(l, userns, netns, "-6", &batch6, &ignored);
	if (err && ignored.size)
		log_debug("IPv6 is not blocked once more: %s", ignored.data);
	return 0;
}

/* --- slirp4netns --- */

/* Waits until fd has something to read: 0; -EIO when the child has ended, -ETIMEDOUT, -EINTR. */
static int wait_ready(struct call *c, struct child *child, int fd)
{
	for (int64_t until = call_now_ms() + READY_MS;;) {
		struct pollfd p = {fd, POLLIN, 0};
		char byte;
		if (poll(&p, 1, LOOK_MS) > 0)
			return read(fd, &byte, 1) == 1 ? 0 : -EIO;
		if (child_ended(child))
			return -EIO;
		if (c && call_cancelled(c))
			return -EINTR;
		if (call_now_ms() >= until)
			return -ETIMEDOUT;
	}
}

/*
 * It runs inside the user namespace that owns the network: there it may also shut itself into a mount namespace
 * without the host's files (--enable-sandbox) and drop what rights it has.
 */
static int start_slirp(const struct local *l, struct call *c, const struct net_plan *p, int userns,
	int netns, struct child **out, int *exit_out, struct buf *why)
{
	int ready[2], leave[2];
	if (pipe2(ready, O_CLOEXEC) < 0)
		return -errno;
	AUTO_FD int ready_in = ready[0];
	AUTO_FD int ready_out = ready[1];
	if (pipe2(leave, O_CLOEXEC) < 0)
		return -errno;
	AUTO_FD int leave_in = leave[0];
	AUTO_FD int leave_out = leave[1];
	AUTO_BUF cidr = BUF_INIT;
	struct in_addr net = {htonl(p->subnet)};
	char text[INET_ADDRSTRLEN];
	if (!inet_ntop(AF_INET, &net, text, sizeof text))
		return -errno;
	buf_printf(&cidr, "--cidr=%s/24", text);
	if (buf_error(&cidr))
		return -ENOMEM;
	const struct spawn_fd fds[] = {{ready_out, 3}, {leave_in, 4}, {netns, 5}};
	char *const argv[] = {l->slirp, "--configure", "--mtu=65520", "--disable-host-loopback",
		cidr.data, "--ready-fd=3", "--exit-fd=4", "--enable-sandbox", "--enable-seccomp",
		"--netns-type=path", "/proc/self/fd/5", "tap0", NULL};
	struct spawn what = {.path = l->slirp,
		.argv = argv,
		.fds = fds,
		.nfds = 3,
		.collect = true,
		.cwd = -1,
		.userns = userns,
		.netns = -1,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid,
		.stage = l->drop ? local_stage() : NULL,
		.tun = l->drop};
	struct child *child;
	const char *stage = "";
	int err = spawner_start(l->spawner, &what, &child, &stage);
	if (err) {
		buf_printf(why, "%s: %s", stage, strerror(-err));
		return err;
	}
	close(steal_fd(&ready_out));
	err = wait_ready(c, child, ready_in);
	if (err) {
		child_signal(child, SIGKILL);
		child_wait(child, call_now_ms() + READY_MS, NULL); /* what it said is complete then */
		child_output(child, why);
		child_put(child);
		return err;
	}
	*out = child;
	*exit_out = steal_fd(&leave_out);
	return 0;
}

int local_net_attach(struct local *l, struct call *c, struct net_plan *p, pid_t pid,
	struct child **slirp, int *exit_fd)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
	AUTO_FD int netns = open(path, O_RDONLY | O_CLOEXEC);
	/* bubblewrap nests two user namespaces: the outer one owns the network. */
	AUTO_FD int userns = netns < 0 ? -1 : ioctl(netns, NS_GET_USERNS);
	AUTO_BUF why = BUF_INIT;
	int err = userns < 0 ? -errno : 0;
	if (err)
		buf_printf(&why, "%s", strerror(-err));
	else if (!(err = raise_walls(l, p, userns, netns, &why)))
		err = start_slirp(l, c, p, userns, netns, slirp, exit_fd, &why);
	if (!err || err == -EINTR)
		return err;
	if (!why.size)
		buf_str(&why, strerror(-err));
	for (size_t i = 0; i < why.size; i++)
		if (why.data[i] == '\n')
			why.data[i] = i + 1 < why.size ? ' ' : 0;
	log_error("no network: %s", why.data ? why.data : "out of memory");
	say_none(p, why.data ? why.data : "out of memory");
	return 0;
}
