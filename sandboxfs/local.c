/*
 * The local driver: sandboxes on this machine, one bubblewrap with one sandboxd each, reached over a Unix socket.
 * Owns their life from start to stop: the lock, the socket, the children. What is on disk: names.c, local_dir.c; sockets' directory: run_dir.c;
 * the command line: local_bwrap.c; network: local_net.c. Speaks no HTTP beyond the one line that shows that sandboxd answers.
 *
 * Nothing stays behind, however the program ends: sandboxd, pid 1 of its process namespace, ends with the other end of its lifeline, a
 * pipe that we hold; slirp4netns dies with us and at the end of a pipe besides, locks are dropped by the kernel, and a leftover socket directory is removed by the next program.
 *
 * Started by root, a sandbox never has a process of root's: every child first becomes SANDBOX_UID. An id that no account has: systemd gives
 * 524288 to 1879048191 to containers and 2147352576 upwards to others, distributions what is below.
 *
 * Limits. processes: RLIMIT_NPROC, set by sandboxd; since Linux 5.14 it counts per user namespace, thus per sandbox; before that
 * all processes of the uid count together. memory: RLIMIT_DATA, which holds for each process alone (what all of them may take
 * together is processes times memory), and which the tmpfs and files in the page cache do not count for. tmp: the size of /tmp, and a
 * quarter of it for each lesser tmpfs.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "driver.h"
#include "local.h"
#include "log.h"

enum {
	SANDBOX_UID = 1900000001,
	LIMIT_PROCESSES = 1024,
	START_MS = 30000,
	LOOK_MS = 50,
	POLITE_MS = 1500,  /* sandboxd's time to end what it started; then the kernel ends it */
	BUCKETS_MS = 3000, /* s3fs's, when the last file is closed and the mount is gone */
	FORCED_MS = 5000
};

/* An end in BOX_STARTING is told by start's result, in BOX_RUNNING by died. */
enum box_state { BOX_STARTING, BOX_RUNNING, BOX_OVER };

/* A sandbox from start to stop. */
struct box {
	struct box *next; /* of those that run; the driver's lock, as refs */
	unsigned refs;
	struct child *bwrap, *slirp;
	bool stays; /* bwrap could not be ended: box_exited is still to come */
	struct bucket_set *buckets;
	int lock;       /* of its directory */
	int init;       /* pidfd of its pid 1, sandboxd */
	int slirp_exit; /* closing it ends slirp4netns */
	int life;       /* closing it ends sandboxd */
	char *socket;   /* path */
	atomic_int
		state; /* enum box_state; who changes it to BOX_OVER first decides whether died is called */
	void (*died)(void *arg);
	void *arg;
	char *name;
};

/* --- open and close --- */

static void local_close(void *state)
{
	struct local *l = state;
	if (!l)
		return;
	spawner_free(l->spawner);
	run_dir_close(&l->run);
	local_programs_free(l);
	names_close(&l->names);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

static int local_open(const struct options *o, struct call *c, void **state)
{
	struct local *l = calloc(1, sizeof *l);
	if (!l)
		return -ENOMEM;
	bool root = geteuid() == 0;
	l->options = o;
	l->names.dir = l->run.lock = -1;
	l->drop = root;
	l->uid = root ? SANDBOX_UID : geteuid();
	l->gid = root ? SANDBOX_UID : getegid();
	pthread_mutex_init(&l->lock, NULL);
	int err = local_programs(l, c);
	if (!err)
		err = spawner_new(&l->spawner);
	if (!err)
		err = local_dir_open(l, c);
	if (!err)
		err = run_dir_open(&l->run, c);
	if (err) {
		local_close(l);
		return err;
	}
	*state = l;
	return 0;
}

/* --- names --- */

static const struct names *names_of(const struct local *l)
{
	return &l->names;
}

static int local_list(void *state, bool (*cb)(const char *name, void *arg), void *arg)
{
	return names_each(names_of(state), cb, arg);
}

static int local_probe(void *state, const char *name)
{
	AUTO_FD int dir = -1;
	/* What is there but cannot be used exists: start says what is wrong with it. */
	return names_find(names_of(state), NULL, name, &dir) == -ENOENT ? -ENOENT : 0;
}

static int local_create(void *state, struct call *c, const char *name)
{
	return names_create(names_of(state), c, name);
}

static int local_destroy(void *state, struct call *c, const char *name)
{
	return local_dir_destroy(state, c, name);
}

static int local_in_use(void *state, const char *name, char *detail, size_t size)
{
	return names_in_use(names_of(state), name, detail, size);
}

/* --- start --- */

static void box_exited(void *arg) /* on the spawner's thread */
{
	struct box *b = arg;
	if (atomic_exchange(&b->state, BOX_OVER) != BOX_RUNNING)
		return;
	pidfd_send_signal(b->init, SIGKILL, NULL, 0); /* somebody may have killed bubblewrap alone */
	b->died(b->arg);
}

/* A sentence from what bubblewrap (or sandboxd, its child) wrote last. */
static int box_failed(struct call *c, const char *name, struct child *bwrap)
{
	AUTO_BUF said = BUF_INIT;
	child_output(bwrap, &said);
	buf_char(&said, 0);
	if (buf_error(&said))
		return -ENOMEM;
	char *line = said.data;
	while (*line && line[strlen(line) - 1] == '\n')
		line[strlen(line) - 1] = 0;
	char *last = strrchr(line, '\n');
	if (last)
		line = last + 1;
	for (char *at = line; *at; at++)
		if ((unsigned char)*at < ' ')
			*at = '?';
	/* bubblewrap's words where a new user namespace is refused. */
	bool refused =
		strstr(line, "ermission") || strstr(line, "namespace") || strstr(line, "uid map");
	if (refused && strncmp(line, "bwrap:", 6) == 0)
		return call_fault(c, EPERM, NULL,
			"%s: bubblewrap cannot make the sandbox: %s; user namespaces may be closed to users: "
			"sysctl "
			"kernel.unprivileged_userns_clone=1 (Debian), "
			"kernel.apparmor_restrict_unprivileged_userns=0 "
			"(Ubuntu)",
			name, line);
	return call_fault(
		c, EIO, NULL, "%s: the sandbox ended at once: %s", name, *line ? line : "without a word");
}

/* What every wait of start looks at between two polls: 0 go on, else why not. */
static int still_starting(struct call *c, const char *name, struct child *bwrap, int64_t until)
{
	if (child_ended(bwrap))
		return box_failed(c, name, bwrap);
	if (c && call_cancelled(c))
		return -EINTR;
	if (call_now_ms() >= until)
		return call_fault(
			c, ETIMEDOUT, NULL, "%s: the sandbox did not start within %d s", name, START_MS / 1000);
	return 0;
}

/* Reads what bubblewrap says of its child, {"child-pid": N, …}, and *pid from it. */
static int read_info(
	struct call *c, const char *name, struct child *bwrap, int fd, int64_t until, pid_t *pid)
{
	AUTO_BUF text = BUF_INIT;
	for (;;) {
		struct pollfd p = {fd, POLLIN, 0};
		char chunk[512];
		ssize_t n = poll(&p, 1, LOOK_MS) > 0 ? read(fd, chunk, sizeof chunk) : -1;
		if (n > 0)
			buf_add(&text, chunk, (size_t)n);
		if (n > 0 && memchr(chunk, '}', (size_t)n))
			break;
		int err = still_starting(c, name, bwrap, until);
		if (err)
			return err;
		if (n == 0) /* it has closed its end: its own end is near, and has the reason */
			child_wait(bwrap, call_now_ms() + LOOK_MS, NULL);
		if (text.size > 4096)
			return -EPROTO;
	}
	if (buf_error(&text))
		return -ENOMEM;
	return bwrap_child(text.data, pid) < 0
			   ? call_fault(c, EPROTO, NULL, "%s: bubblewrap does not tell its child", name)
			   : 0;
}

/*
 * Its child tells its number before it has mapped its ids (uid_map, then gid_map, in one go). A program that joins the user namespace
 * earlier is nobody there and loses its capabilities with the exec.
 */
static int wait_mapped(
	struct call *c, const char *name, struct child *bwrap, pid_t pid, int64_t until)
{
	char path[64], byte;
	snprintf(path, sizeof path, "/proc/%d/gid_map", (int)pid);
	for (;;) {
		AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, &byte, 1) == 1)
			return 0;
		int err = still_starting(c, name, bwrap, until);
		if (err)
			return err;
		nanosleep(&(struct timespec){0, 1000000}, NULL); /* a file of /proc cannot be polled */
	}
}

/* Waits until sandboxd answers anything at all. */
static int wait_answer(struct call *c, const char *name, const struct box *b, int64_t until)
{
	static const char ask[] = "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strncpy(address.sun_path, b->socket, sizeof address.sun_path - 1);
	AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof address) < 0 ||
		send(s, ask, sizeof ask - 1, MSG_NOSIGNAL) != (ssize_t)sizeof ask - 1)
		return call_fault(c, errno, NULL, "%s: %s: %s", name, b->socket, strerror(errno));
	for (;;) {
		struct pollfd p = {s, POLLIN, 0};
		if (poll(&p, 1, LOOK_MS) > 0 && p.revents & POLLIN)
			return 0;
		int err = still_starting(c, name, b->bwrap, until);
		if (err)
			return err;
	}
}

struct pipes {
	int info_in, info_out, block_in, block_out, life_in;
};

static int make_pipe(int *in, int *out)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*in = ends[0];
	*out = ends[1];
	return 0;
}

static int spawn_bwrap(const struct local *l, struct call *c, struct box *b, struct box_plan *plan,
	int socket, const struct pipes *p)
{
	AUTO_FD int args = -1;
	AUTO_BUF processes = BUF_INIT;
	AUTO_BUF min_free = BUF_INIT;
	AUTO_BUF life = BUF_INIT;
	const struct options *o = l->options;
	buf_printf(&processes, "%llu",
		(unsigned long long)(o->limit_processes ? o->limit_processes : LIMIT_PROCESSES));
	buf_printf(&min_free, "%llu", (unsigned long long)o->min_free);
	buf_printf(&life, "%d", BOX_FD_LIFE);
	if (buf_error(&processes) || buf_error(&min_free) || buf_error(&life))
		return -ENOMEM;
	int err = memory_file("args", plan->args.data, plan->args.size, &args);
	if (err)
		return err;
	struct spawn_fd fds[BOX_FD_FILES + BOX_FILES] = {{socket, BOX_FD_SOCKET}, {args, BOX_FD_ARGS},
		{p->info_out, BOX_FD_INFO}, {p->block_in, BOX_FD_BLOCK}, {p->info_in, BOX_FD_INFO_IN},
		{p->life_in, BOX_FD_LIFE}};
	size_t nfds = BOX_FD_FILES - BOX_FD_SOCKET;
	for (size_t i = 0; i < plan->nfiles; i++)
		fds[nfds++] = (struct spawn_fd){plan->files[i], BOX_FD_FILES + (int)i};
	char *const argv[] = {l->bwrap, "--args", "4", "--", "/.sandboxd/sandboxd", "--listen", "fd:3",
		"--lifeline", life.data, "--spool", "/.sandboxd/spool", "--processes", processes.data,
		"--min-free", min_free.data, NULL};
	struct spawn what = {.path = l->bwrap,
		.argv = argv,
		.fds = fds,
		.nfds = nfds,
		.collect = true,
		.cwd = -1,
		.userns = -1,
		.netns = -1,
		.outlives = true,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid,
		.limit_data = o->limit_memory,
		.files = o->files,
		.stage = l->drop ? local_stage() : NULL,
		.mounts = plan->mounts,
		.nmounts = plan->nmounts,
		.on_exit = box_exited,
		.arg = b};
	const char *stage = "";
	err = spawner_start(l->spawner, &what, &b->bwrap, &stage);
	if (err)
		return call_fault(c, -err, NULL, "%s: bubblewrap could not be started (%s): %s", plan->name,
			stage, strerror(-err));
	return 0;
}

/* From the spawned bubblewrap to an answering sandboxd. */
static int bring_up(
	struct local *l, struct call *c, struct box *b, struct net_plan *net, struct pipes *p)
{
	int64_t until = call_now_ms() + START_MS;
	pid_t pid = -1;
	close(steal_fd(&p->info_out)); /* so that its end is seen */
	close(steal_fd(&p->block_in));
	close(steal_fd(&p->life_in));
	int err = read_info(c, b->name, b->bwrap, p->info_in, until, &pid);
	if (err)
		return err;
	/* It waits at p->block and is not reaped: the number is still its own. */
	b->init = pidfd_open(pid, 0);
	if (b->init < 0)
		return child_ended(b->bwrap) ? box_failed(c, b->name, b->bwrap) : -errno;
	err = names_note(b->lock, pid);
	if (err)
		return call_fault(c, -err, NULL, "%s: its lock: %s", b->name, strerror(-err));
	if (net->attach)
		err = wait_mapped(c, b->name, b->bwrap, pid, until);
	if (!err && net->attach)
		err = local_net_attach(l, c, net, pid, &b->slirp, &b->slirp_exit);
	if (err)
		return err;
	if (write(p->block_out, "1", 1) != 1) {
		/* EPIPE (SIGPIPE is ignored by the program): it has ended; wait for its words. */
		child_wait(b->bwrap, call_now_ms() + FORCED_MS, NULL);
		return box_failed(c, b->name, b->bwrap);
	}
	err = wait_answer(c, b->name, b, until);
	return err ? err : local_buckets_new(l, b->name, b->init, pid, &b->buckets);
}

static void box_free(struct box *b)
{
	if (b->lock >= 0) {
		/* Not left to close: a child being forked at this moment has a copy. */
		struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
		fcntl(b->lock, F_OFD_SETLK, &all); /* close follows in any case */
		close(b->lock);
	}
	if (b->socket)
		unlink(b->socket); /* in a directory of ours; what stays is removed by the next program */
	if (b->init >= 0)
		close(b->init);
	if (b->slirp_exit >= 0)
		close(b->slirp_exit);
	if (b->life >= 0)
		close(b->life);
	child_put(b->bwrap);
	child_put(b->slirp);
	local_buckets_free(b->buckets);
	free(b->socket);
	free(b->name);
	if (!b->stays)
		free(b);
}

/* Drops a reference. */
static void box_put(struct local *l, struct box *b)
{
	pthread_mutex_lock(&l->lock);
	bool last = --b->refs == 0;
	pthread_mutex_unlock(&l->lock);
	if (last)
		box_free(b);
}

/* The one of this name that runs: new reference or NULL. */
static struct box *box_running(struct local *l, const char *name)
{
	AUTO_UNLOCK(&l->lock);
	for (struct box *b = l->boxes; b; b = b->next)
		if (strcmp(b->name, name) == 0 && atomic_load(&b->state) == BOX_RUNNING) {
			b->refs++;
			return b;
		}
	return NULL;
}

/* Has pid 1 of the sandbox, and with it every process there, ended by the deadline? */
static bool init_gone(const struct box *b, int64_t deadline)
{
	for (;;) {
		struct pollfd p = {b->init, POLLIN, 0};
		int64_t left = deadline - call_now_ms();
		int n = poll(&p, 1, left > 0 ? (int)left : 0);
		if (n > 0 || (n == 0 && left <= 0))
			return n > 0;
	}
}

/*
 * Ends what runs of it; polite: sandboxd may first end its commands. Looks at pid 1 and not only at bubblewrap, which somebody may
 * have killed: pid 1 then outlives it for a moment.
 */
static void box_end(struct box *b, bool polite)
{
	atomic_store(&b->state, BOX_OVER);
	if (b->init >= 0) {
		if (polite)
			pidfd_send_signal(b->init, SIGTERM, NULL, 0); /* ESRCH: ended already */
		if (!polite || !init_gone(b, call_now_ms() + POLITE_MS)) {
			/* What waits for a bucket could not be killed. */
			if (b->buckets)
				local_buckets_end(b->buckets, 0);
			pidfd_send_signal(b->init, SIGKILL, NULL, 0);
			if (!init_gone(b, call_now_ms() + FORCED_MS))
				log_error("%s: its processes do not end", b->name);
		}
	}
	if (b->buckets)
		local_buckets_end(b->buckets, BUCKETS_MS);
	if (b->bwrap && (b->init < 0 || child_wait(b->bwrap, call_now_ms() + FORCED_MS, NULL))) {
		/* Its child too, which may not be told to us yet. */
		child_kill_group(b->bwrap);
		b->stays = child_wait(b->bwrap, call_now_ms() + FORCED_MS, NULL) != 0;
		if (b->stays)
			log_error("%s: bubblewrap does not end", b->name);
	}
	if (b->slirp) {
		if (b->slirp_exit >= 0)
			close(steal_fd(&b->slirp_exit));
		child_signal(b->slirp, SIGKILL);
		if (child_wait(b->slirp, call_now_ms() + FORCED_MS, NULL))
			log_error("%s: slirp4netns does not end", b->name);
	}
}

static int box_start(struct local *l, struct call *c, struct box *b, struct net_plan *net)
{
	AUTO_FD int dir = -1;
	AUTO_FD int workspace = -1;
	AUTO_FD int spool = -1;
	AUTO_FD int listener = -1;
	int err = names_find(&l->names, c, b->name, &dir);
	if (!err)
		err = names_lock(&l->names, c, b->name, dir, &b->lock);
	if (!err)
		err = local_dir_part(l, c, b->name, dir, "workspace", true, &workspace);
	if (!err)
		err = local_dir_clear(l, c, b->name, dir, "spool");
	if (!err)
		err = local_dir_clear(l, c, b->name, dir, "buckets");
	if (!err)
		err = local_dir_part(l, c, b->name, dir, "spool", true, &spool);
	if (!err)
		err = run_dir_listen(&l->run, c, &b->socket, &listener);
	if (err)
		return err;
	struct pipes p = {-1, -1, -1, -1, -1};
	err = make_pipe(&p.info_in, &p.info_out);
	if (!err)
		err = make_pipe(&p.block_in, &p.block_out);
	if (!err)
		err = make_pipe(&p.life_in, &b->life);
	struct box_plan plan = {.name = b->name, .workspace = workspace, .spool = spool, .net = net};
	local_net_plan(l, net);
	if (!err)
		err = box_plan_make(l, c, &plan);
	if (!err)
		err = spawn_bwrap(l, c, b, &plan, listener, &p);
	box_plan_release(&plan);
	if (!err)
		err = bring_up(l, c, b, net, &p);
	for (int *fd = (int *)&p; fd < (int *)(&p + 1); fd++)
		if (*fd >= 0)
			close(*fd);
	return err;
}

static int local_start(void *state, struct call *c, const char *name, void (*died)(void *arg),
	void *arg, struct driver_instance *out)
{
	struct local *l = state;
	struct net_plan net;
	struct box *b = calloc(1, sizeof *b);
	if (!b)
		return -ENOMEM;
	b->lock = b->init = b->slirp_exit = b->life = -1;
	b->died = died;
	b->arg = arg;
	b->refs = 1;
	atomic_init(&b->state, BOX_STARTING);
	b->name = strdup(name);
	AUTO_FREE char *base = strdup("http://localhost");
	AUTO_FREE char *path = NULL;
	int err = b->name && base ? box_start(l, c, b, &net) : -ENOMEM;
	if (!err && !(path = strdup(b->socket)))
		err = -ENOMEM;
	int starting = BOX_STARTING;
	if (!err && !atomic_compare_exchange_strong(&b->state, &starting, BOX_RUNNING))
		err = box_failed(c, name, b->bwrap);
	if (err) {
		box_end(b, false);
		box_free(b);
		return err;
	}
	pthread_mutex_lock(&l->lock);
	b->next = l->boxes;
	l->boxes = b;
	pthread_mutex_unlock(&l->lock);
	*out = (struct driver_instance){
		.target = {.base = steal(base), .unix_path = steal(path)}, .data = b};
	snprintf(out->network, sizeof out->network, "%s", net.word);
	return 0;
}

static void local_stop(void *state, int64_t by_ms, const char *name, struct driver_instance *inst)
{
	struct local *l = state;
	(void)by_ms; /* nobody is asked */
	(void)name;
	struct box *b = inst->data;
	if (b) {
		pthread_mutex_lock(&l->lock);
		for (struct box **at = &l->boxes; *at; at = &(*at)->next)
			if (*at == b) {
				*at = b->next;
				break;
			}
		pthread_mutex_unlock(&l->lock);
		box_end(b, true);
		box_put(l, b);
	}
	free(inst->target.base);
	free(inst->target.unix_path);
	free(inst->target.token);
	*inst = (struct driver_instance){0};
}

/* The disk of the data directory, less what min-free= keeps. */
static int local_space(void *state, struct statvfs *out)
{
	const struct local *l = state;

	if (fstatvfs(l->names.dir, out) < 0)
		return -errno;
	uint64_t unit = out->f_frsize ? out->f_frsize : 4096;
	uint64_t kept = (l->options->min_free + unit - 1) / unit;
	out->f_bfree = out->f_bfree > kept ? out->f_bfree - kept : 0;
	out->f_bavail = out->f_bavail > kept ? out->f_bavail - kept : 0;
	return 0;
}

/* --- buckets --- */

static int bucket_mount(void *state, struct call *c, const char *name, const struct bucket *bucket)
{
	struct box *b = box_running(state, name);
	if (!b)
		return call_fault(c, ESTALE, NULL, "%s: the sandbox has just ended; try again", name);
	int err = local_bucket_mount(b->buckets, c, bucket);
	box_put(state, b);
	return err;
}

static int bucket_unmount(void *state, struct call *c, const char *name, const char *bucket)
{
	struct box *b = box_running(state, name);
	if (!b)
		return -ENOENT;
	int err = local_bucket_unmount(b->buckets, c, bucket);
	box_put(state, b);
	return err;
}

static void bucket_each(void *state, const char *name,
	bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg)
{
	struct box *b = box_running(state, name);
	if (!b)
		return;
	local_bucket_each(b->buckets, cb, arg);
	box_put(state, b);
}

const struct driver_ops local_driver = {
	.kind = "local",
	.id_names = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
	.many = true,
	.starts = true,
	.ours = true,
	.open = local_open,
	.close = local_close,
	.list = local_list,
	.probe = local_probe,
	.create = local_create,
	.destroy = local_destroy,
	.start = local_start,
	.stop = local_stop,
	.in_use = local_in_use,
	.space = local_space,
	.bucket_mount = bucket_mount,
	.bucket_unmount = bucket_unmount,
	.bucket_each = bucket_each,
};
