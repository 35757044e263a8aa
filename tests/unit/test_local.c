/* links: sandboxfs/local.c sandboxfs/local_dir.c sandboxfs/run_dir.c sandboxfs/names.c sandboxfs/local_bwrap.c sandboxfs/local_net.c sandboxfs/local_bucket.c sandboxfs/local_bucket_child.c sandboxfs/local_s3fs.c sandboxfs/bucket.c sandboxfs/spawner.c sandboxfs/spawner_child.c sandboxfs/call.c sandboxfs/log.c contrib/common/buf.c contrib/common/tree_remove.c */
/*
 * The life of local sandboxes, with the real bubblewrap and a stand-in for sandboxd: this very program, which inside a
 * sandbox answers any connection by one line. What sandboxd itself does is tested through mounts.
 * Skips where no user namespace can be made.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "buf.h"
#include "cleanup.h"
#include "driver.h"

/* --- the stand-in --- */

static void on_term(int sig)
{
	(void)sig;
	_exit(0);
}

static int stand_in(int argc, char **argv)
{
	int lifeline = -1;
	for (int i = 1; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--lifeline"))
			lifeline = atoi(argv[i + 1]);
	signal(SIGTERM, on_term);
	if (access("/workspace/fail", F_OK) == 0) {
		fprintf(stderr, "noise\nthe workspace says no\n");
		return 3;
	}
	if (access("/workspace/deaf", F_OK) == 0)
		signal(SIGTERM, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0);
	for (;;) {
		struct pollfd fds[] = {{3, POLLIN, 0}, {lifeline, 0, 0}};
		if (poll(fds, 2, -1) < 0 || fds[1].revents)
			return 6;
		int s = accept(3, NULL, NULL);
		if (s < 0)
			return 1;
		static const char answer[] = "HTTP/1.0 200 OK\r\n\r\n";
		char ask[64];
		ssize_t n = read(s, ask, sizeof ask);
		if (n >= 6 && !memcmp(ask, "WRITE ", 6)) {
			int f = open("/workspace/made", O_CREAT | O_WRONLY | O_TRUNC, 0644);
			if (f < 0 || write(f, "x", 1) != 1)
				return 4;
			close(f);
		}
		if (n >= 4 && !memcmp(ask, "EXIT", 4))
			return 5;
		if (write(s, answer, sizeof answer - 1) < 0)
			return 1;
		close(s);
	}
}

static void nobody_died(void *arg)
{
	(void)arg;
}

/* Another program with a mount of its own: starts `box`, tells its socket, and stays. */
static int hold(const char *server)
{
	struct options o = {.server = (char *)server, .mountpoint = "/mnt/here", .net = NET_NONE};
	struct call c;
	void *mine;
	struct driver_instance a;
	call_init(&c, 0);
	if (local_driver.open(&o, &c, &mine) ||
		local_driver.start(mine, &c, "box", nobody_died, NULL, &a))
		return 1;
	size_t n = strlen(a.target.unix_path) + 1;
	if (write(1, a.target.unix_path, n) != (ssize_t)n)
		return 2;
	for (;;)
		pause();
}

/* --- each test has a place of its own --- */

struct place {
	char dir[64];
	char server[96];
	struct options options;
	void *state;
	struct call call;
	sem_t died;
};

static void say(const char *why, const struct call *c)
{
	if (c->fault.err)
		print_message("%s: %s\n", why, c->fault.message);
}

static int setup(void **out)
{
	struct place *p = calloc(1, sizeof *p);
	if (!p)
		return -1;
	snprintf(p->dir, sizeof p->dir, "/tmp/test-local-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->server, sizeof p->server, "local:%s/data", p->dir);
	setenv("XDG_RUNTIME_DIR", p->dir, 1);
	p->options = (struct options){.server = p->server, .mountpoint = "/mnt/here", .net = NET_NONE};
	call_init(&p->call, 0);
	sem_init(&p->died, 0, 0);
	int err = local_driver.open(&p->options, &p->call, &p->state);
	say("open", &p->call);
	assert_int_equal(err, 0);
	*out = p;
	return 0;
}

static bool empty_but(const char *dir, const char *name)
{
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "test -z \"$(ls -A %s | grep -vx %s)\"", dir, name);
	return system(b.data) == 0;
}

/* What lost its parent is ours (main has seen to it): all of it ends. */
static bool no_child_left(void)
{
	int64_t until = call_now_ms() + 5000;
	while (waitpid(-1, NULL, WNOHANG) >= 0) {
		if (call_now_ms() > until)
			return false;
		nanosleep(&(struct timespec){0, 1000000}, NULL); /* between two looks */
	}
	return true;
}

static int teardown(void **state)
{
	struct place *p = *state;
	local_driver.close(p->state);
	assert_true(empty_but(p->dir, "data")); /* no socket directory stays */
	assert_true(no_child_left());
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "rm -rf %s", p->dir);
	assert_int_equal(system(b.data), 0);
	call_destroy(&p->call);
	sem_destroy(&p->died);
	free(p);
	return 0;
}

static void on_died(void *arg)
{
	struct place *p = arg;
	sem_post(&p->died);
}

static int start(struct place *p, const char *name, struct driver_instance *out)
{
	fault_clear(&p->call.fault);
	return local_driver.start(p->state, &p->call, name, on_died, p, out);
}

static void must_start(struct place *p, const char *name, struct driver_instance *out)
{
	int err = start(p, name, out);
	say("start", &p->call);
	assert_int_equal(err, 0);
}

static int ask(const struct driver_instance *inst, const char *what)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strncpy(a.sun_path, inst->target.unix_path, sizeof a.sun_path - 1);
	AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char answer[64];
	if (connect(s, (struct sockaddr *)&a, sizeof a) < 0 ||
		send(s, what, strlen(what), MSG_NOSIGNAL) < 0)
		return -errno;
	return (int)read(s, answer, sizeof answer);
}

/* Runs a shell command with the place as $1. */
static int sh(const struct place *p, const char *script)
{
	setenv("PLACE", p->dir, 1);
	return system(script);
}

static int64_t status_ms(int64_t since)
{
	return call_now_ms() - since;
}

/* --- tests --- */

static void names(void **state)
{
	struct place *p = *state;
	static const char *const bad[] = {
		"", ".", "..", ".x", "-x", "_x", "a/b", "a b", "a\nb", "\xc3\xa4"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(local_driver.probe(p->state, bad[i]), -ENOENT);
		fault_clear(&p->call.fault);
		assert_int_equal(local_driver.create(p->state, &p->call, bad[i]), -EINVAL);
	}
	char longest[65];
	memset(longest, 'x', 64);
	longest[64] = 0;
	assert_int_equal(local_driver.create(p->state, NULL, longest), -EINVAL);
	longest[63] = 0;
	assert_int_equal(local_driver.create(p->state, NULL, longest), 0);
	assert_int_equal(local_driver.create(p->state, NULL, longest), -EEXIST);
	assert_int_equal(local_driver.probe(p->state, longest), 0);
	assert_int_equal(local_driver.destroy(p->state, NULL, longest), 0);
	assert_int_equal(local_driver.probe(p->state, longest), -ENOENT);
	assert_int_equal(local_driver.destroy(p->state, NULL, longest), -ENOENT);
}

static bool count_name(const char *name, void *arg)
{
	(void)name;
	++*(int *)arg;
	return true;
}

static void list(void **state)
{
	struct place *p = *state;
	int n = 0;
	assert_int_equal(local_driver.create(p->state, NULL, "a"), 0);
	assert_int_equal(local_driver.create(p->state, NULL, "b"), 0);
	assert_int_equal(
		sh(p, "ln -s a $PLACE/data/c; touch $PLACE/data/d; mkdir $PLACE/data/.gone-1"), 0);
	assert_int_equal(local_driver.list(p->state, count_name, &n), 0);
	assert_int_equal(n, 2);
}

static void life(void **state)
{
	struct place *p = *state;
	struct driver_instance a, b;
	assert_int_equal(start(p, "box", &a), -ENOENT);
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	must_start(p, "box", &a);
	assert_string_equal(a.network, "none");
	assert_true(ask(&a, "WRITE ") > 0);
	assert_int_equal(start(p, "box", &b), -EBUSY);
	assert_non_null(strstr(p->call.fault.message, "in use by pid"));
	assert_int_equal(local_driver.destroy(p->state, NULL, "box"), -EBUSY);
	int64_t since = call_now_ms();
	local_driver.stop(p->state, 0, "box", &a);
	assert_true(status_ms(since) < 2000);
	assert_int_equal(sem_trywait(&p->died), -1); /* stopped, not died */
	assert_int_equal(sh(p, "test -s $PLACE/data/box/workspace/made"), 0);
	/* What a killed program left beside the workspace is cleared; the workspace is not. */
	assert_int_equal(sh(p, "touch $PLACE/data/box/spool/old"), 0);
	must_start(p, "box", &a); /* again, at once */
	assert_int_equal(
		sh(p, "test ! -e $PLACE/data/box/spool/old -a -s $PLACE/data/box/workspace/made"), 0);
	local_driver.stop(p->state, 0, "box", &a);
	assert_int_equal(local_driver.destroy(p->state, NULL, "box"), 0);
	assert_int_equal(sh(p, "test -z \"$(ls -A $PLACE/data)\""), 0);
}

static void deaf(void **state) /* it does not end at SIGTERM: the kernel ends it, in time */
{
	struct place *p = *state;
	struct driver_instance a;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	assert_int_equal(
		sh(p, "mkdir $PLACE/data/box/workspace && touch $PLACE/data/box/workspace/deaf && "
			  "if [ $(id -u) = 0 ]; then chown -R 1900000001:1900000001 "
			  "$PLACE/data/box/workspace; fi"),
		0);
	must_start(p, "box", &a);
	int64_t since = call_now_ms();
	local_driver.stop(p->state, 0, "box", &a);
	assert_true(status_ms(since) < 2500);
}

static void died(void **state)
{
	struct place *p = *state;
	struct driver_instance a;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	must_start(p, "box", &a);
	ask(&a, "EXIT");
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	assert_int_equal(sem_timedwait(&p->died, &until), 0);
	local_driver.stop(p->state, 0, "box", &a);
	assert_int_equal(sem_trywait(&p->died), -1); /* once */
	must_start(p, "box", &a);
	local_driver.stop(p->state, 0, "box", &a);
}

/* Only bubblewrap is killed: the sandbox ends with it, and no later than stop does another find its workspace in use. */
static void bubblewrap_killed(void **state)
{
	struct place *p = *state;
	struct driver_instance a;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	must_start(p, "box", &a);
	AUTO_BUF kill = BUF_INIT;
	buf_printf(&kill, "kill -9 $(pgrep -x bwrap -P %d)", (int)getpid());
	assert_int_equal(sh(p, kill.data), 0);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	assert_int_equal(sem_timedwait(&p->died, &until), 0);
	local_driver.stop(p->state, 0, "box", &a);
	must_start(p, "box", &a);
	local_driver.stop(p->state, 0, "box", &a);
}

static void early_end(void **state) /* its last line is the sentence */
{
	struct place *p = *state;
	struct driver_instance a;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	assert_int_equal(
		sh(p, "mkdir $PLACE/data/box/workspace && touch $PLACE/data/box/workspace/fail"), 0);
	assert_int_equal(start(p, "box", &a), -EIO);
	assert_non_null(strstr(p->call.fault.message, "the workspace says no"));
	assert_int_equal(sem_trywait(&p->died), -1);
	/* nothing holds it: */
	assert_int_equal(local_driver.destroy(p->state, NULL, "box"), 0);
}

static void planted_links(void **state)
{
	struct place *p = *state;
	struct driver_instance a;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	assert_int_equal(
		sh(p, "mkdir $PLACE/victim && touch $PLACE/victim/kept; chmod 777 $PLACE/victim; "
			  "ln -s $PLACE/victim $PLACE/data/box/workspace"),
		0);
	assert_int_equal(start(p, "box", &a), -ENOTDIR);
	assert_non_null(strstr(p->call.fault.message, "links are not followed"));
	assert_int_equal(local_driver.destroy(p->state, NULL, "box"), 0);
	assert_int_equal(sh(p, "test -e $PLACE/victim/kept"), 0);

	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	assert_int_equal(sh(p, "ln -s $PLACE/victim/kept $PLACE/data/box/lock"), 0);
	assert_int_equal(start(p, "box", &a), -ELOOP);
	assert_int_equal(sh(p, "rm $PLACE/data/box/lock; rmdir $PLACE/data/box; "
						   "ln -s $PLACE/victim $PLACE/data/box"),
		0);
	assert_int_equal(local_driver.probe(p->state, "box"), 0);
	assert_int_equal(start(p, "box", &a), -ENOTDIR);
	fault_clear(&p->call.fault);
	assert_int_equal(local_driver.destroy(p->state, &p->call, "box"), -ENOTDIR);
	assert_int_equal(sh(p, "test -e $PLACE/victim/kept && test ! -s $PLACE/victim/kept && "
						   "rm $PLACE/data/box && rm -r $PLACE/victim"),
		0);
}

static void removal(void **state) /* links are removed and not followed, closed directories too */
{
	struct place *p = *state;
	struct driver_instance a;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	must_start(p, "box", &a);
	local_driver.stop(p->state, 0, "box", &a);
	assert_int_equal(
		sh(p, "cd $PLACE/data/box/workspace && mkdir -p $PLACE/victim shut/in && "
			  "touch $PLACE/victim/kept shut/in/f && chmod 777 $PLACE/victim && "
			  "ln -s $PLACE/victim out && ln -s /etc/passwd shut/p && chmod 0 shut/in shut && "
			  "if [ $(id -u) = 0 ]; then chown -hR 1900000001:1900000001 .; fi; chmod 0 ."),
		0);
	int err = local_driver.destroy(p->state, &p->call, "box");
	say("destroy", &p->call);
	assert_int_equal(err, 0);
	assert_int_equal(sh(p, "test -z \"$(ls -A $PLACE/data)\" && test -e $PLACE/victim/kept && "
						   "rm -r $PLACE/victim"),
		0);
}

/* kill -9 of the program: no process, no lock, no socket directory stops or outlives the next one. */
static void killed(void **state)
{
	struct place *p = *state;
	int tell[2];
	assert_int_equal(pipe(tell), 0);
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	pid_t pid = fork();
	if (pid == 0) {
		if (dup2(tell[1], 1) == 1)
			execl("/proc/self/exe", "test_local", "--hold", p->server, (char *)NULL);
		_exit(1);
	}
	char path[128];
	assert_true(read(tell[0], path, sizeof path) > 0);
	close(tell[0]);
	close(tell[1]);
	char detail[256];
	assert_int_equal(local_driver.in_use(p->state, "box", detail, sizeof detail), 1);
	AUTO_BUF want = BUF_INIT;
	buf_printf(&want, "pid %d, /mnt/here", (int)pid);
	assert_string_equal(detail, want.data);
	kill(pid, SIGKILL);
	struct driver_instance a;
	must_start(p, "box", &a); /* without waiting for its end */
	waitpid(pid, NULL, 0);
	assert_int_equal(local_driver.in_use(p->state, "box", detail, sizeof detail), 0);
	local_driver.stop(p->state, 0, "box", &a);
	assert_int_equal(access(path, F_OK), 0);
	struct call c;
	void *next;
	call_init(&c, 0);
	assert_int_equal(local_driver.open(&p->options, &c, &next), 0);
	assert_int_equal(access(path, F_OK), -1);
	local_driver.close(next);
	call_destroy(&c);
}

/* ... and at any moment of a start: a start takes some tens of milliseconds. */
static void killed_while_starting(void **state)
{
	struct place *p = *state;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	for (long us = 0; us < 40000; us += 2000 + random() % 1000) {
		pid_t pid = fork();
		if (pid == 0) {
			AUTO_FD int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
			if (dup2(null, 1) == 1)
				execl("/proc/self/exe", "test_local", "--hold", p->server, (char *)NULL);
			_exit(1);
		}
		nanosleep(&(struct timespec){0, us * 1000}, NULL); /* the moment that is tried */
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		assert_true(no_child_left());
	}
	struct driver_instance a;
	must_start(p, "box", &a);
	local_driver.stop(p->state, 0, "box", &a);
	struct call c;
	void *next;
	call_init(&c, 0);
	assert_int_equal(local_driver.open(&p->options, &c, &next), 0); /* clears the sockets' places */
	local_driver.close(next);
	call_destroy(&c);
	/* Killed before it had locked its place: for a minute that is taken for one being made. */
	assert_int_equal(sh(p, "find $PLACE -maxdepth 1 -name 'sandboxfs-*' -empty -delete"), 0);
}

struct later {
	struct call *call;
	long us;
};

static void *cancel_later(void *arg)
{
	struct later *l = arg;
	nanosleep(&(struct timespec){0, l->us * 1000}, NULL); /* the moment that is tried */
	call_cancel(l->call);
	return NULL;
}

static void cancelled(void **state) /* at any moment of a start: nothing stays */
{
	struct place *p = *state;
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	for (long us = 0; us < 40000; us += 1000 + random() % 1000) {
		struct call c;
		struct driver_instance a;
		pthread_t t;
		struct later later = {&c, us};
		call_init(&c, 0);
		assert_int_equal(pthread_create(&t, NULL, cancel_later, &later), 0);
		int err = local_driver.start(p->state, &c, "box", on_died, p, &a);
		pthread_join(t, NULL);
		assert_true(err == 0 || err == -EINTR);
		if (!err)
			local_driver.stop(p->state, 0, "box", &a);
		call_destroy(&c);
		assert_true(no_child_left());
	}
	struct driver_instance a;
	must_start(p, "box", &a);
	local_driver.stop(p->state, 0, "box", &a);
}

static void again_and_again(void **state) /* rmdir X, mkdir X: never the old files */
{
	struct place *p = *state;
	for (int i = 0; i < 10; i++) {
		struct driver_instance a;
		assert_int_equal(local_driver.create(p->state, NULL, "x"), 0);
		must_start(p, "x", &a);
		assert_int_equal(sh(p, "test ! -e $PLACE/data/x/workspace/made"), 0);
		assert_true(ask(&a, "WRITE ") > 0);
		local_driver.stop(p->state, 0, "x", &a);
		assert_int_equal(local_driver.destroy(p->state, NULL, "x"), 0);
	}
}

struct parallel {
	struct place *p;
	char name[16];
	int err;
};

static void *start_stop(void *arg)
{
	struct parallel *q = arg;
	for (int i = 0; i < 3 && !q->err; i++) {
		struct call c;
		struct driver_instance a;
		call_init(&c, 0);
		q->err = local_driver.start(q->p->state, &c, q->name, on_died, q->p, &a);
		if (!q->err)
			local_driver.stop(q->p->state, 0, q->name, &a);
		call_destroy(&c);
	}
	return NULL;
}

static void parallel(void **state)
{
	struct place *p = *state;
	enum { MANY = 6 };
	struct parallel q[MANY];
	pthread_t t[MANY];
	for (int i = 0; i < MANY; i++) {
		q[i] = (struct parallel){.p = p};
		snprintf(q[i].name, sizeof q[i].name, "p%d", i);
		assert_int_equal(local_driver.create(p->state, NULL, q[i].name), 0);
		assert_int_equal(pthread_create(&t[i], NULL, start_stop, &q[i]), 0);
	}
	for (int i = 0; i < MANY; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(q[i].err, 0);
	}
	assert_int_equal(sem_trywait(&p->died), -1);
}

struct rival {
	const struct place *p;
	int started, wrong;
};

static void *make_and_remove(void *arg)
{
	struct rival *r = arg;
	void *state;
	struct call c;
	call_init(&c, 0);
	r->wrong = local_driver.open(&r->p->options, &c, &state);
	for (int i = 0; i < 25 && !r->wrong; i++) {
		struct driver_instance a;
		fault_clear(&c.fault);
		int err = local_driver.create(state, &c, "x");
		r->wrong = err == -EEXIST ? 0 : err;
		err = local_driver.start(state, &c, "x", nobody_died, NULL, &a);
		if (err && err != -EBUSY && err != -ENOENT)
			r->wrong = err;
		if (err)
			continue;
		r->started++;
		if (ask(&a, "WRITE ") <= 0)
			r->wrong = 2;
		local_driver.stop(state, 0, "x", &a);
		err = local_driver.destroy(state, &c, "x");
		if (err && err != -EBUSY && err != -ENOENT)
			r->wrong = err;
		while (
			err == -EBUSY) /* the other one looks whether it may start: it may not keep the file */
			err = local_driver.destroy(state, &c, "x");
	}
	if (c.fault.err && r->wrong)
		print_message("%s\n", c.fault.message);
	local_driver.close(state);
	call_destroy(&c);
	return NULL;
}

static void two_mounts(void **
		state) /* make and remove one name at once: never the old files, no other error than busy */
{
	struct rival r[2] = {{.p = *state}, {.p = *state}};
	pthread_t t[2];
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, make_and_remove, &r[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < 2; i++)
		assert_int_equal(r[i].wrong, 0);
	assert_true(r[0].started + r[1].started > 0);
}

static void closed_places(void **state) /* a data directory that others could write to is refused */
{
	struct place *p = *state;
	struct call c;
	void *other = NULL;
	AUTO_BUF server = BUF_INIT;
	buf_printf(&server, "local:%s/open", p->dir);
	struct options o = {.server = server.data, .net = NET_NONE};
	call_init(&c, 0);
	assert_int_equal(sh(p, "mkdir $PLACE/open; chmod 777 $PLACE/open"), 0);
	assert_int_equal(local_driver.open(&o, &c, &other), -EPERM);
	assert_non_null(strstr(c.fault.message, "others can write"));
	assert_int_equal(sh(p, "rmdir $PLACE/open"), 0);
	call_destroy(&c);
}

/* --- --- */

static bool usable(void)
{
	return system("bwrap --unshare-user --ro-bind / / true 2>/dev/null") == 0;
}

/* Makes this program be found as sandboxd. */
static void pose_as_sandboxd(char *dir)
{
	assert_non_null(mkdtemp(dir));
	AUTO_FREE char *self = realpath("/proc/self/exe", NULL);
	AUTO_BUF link = BUF_INIT;
	AUTO_BUF path = BUF_INIT;
	buf_printf(&link, "%s/sandboxd", dir);
	buf_printf(&path, "%s:%s", dir, getenv("PATH"));
	assert_int_equal(symlink(self, link.data), 0);
	setenv("PATH", path.data, 1);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--listen"))
		return stand_in(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "--hold"))
		return hold(argv[2]);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!usable()) {
		printf("SKIP: bubblewrap cannot make a user namespace here\n");
		return 0;
	}
	char dir[] = "/tmp/test-local-bin-XXXXXX";
	pose_as_sandboxd(dir);
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(names),
		T(list),
		T(life),
		T(deaf),
		T(died),
		T(bubblewrap_killed),
		T(early_end),
		T(planted_links),
		T(removal),
		T(killed),
		T(killed_while_starting),
		T(cancelled),
		T(again_and_again),
		T(parallel),
		T(two_mounts),
		T(closed_places),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "rm -r %s", dir);
	return system(b.data) || failed;
}
