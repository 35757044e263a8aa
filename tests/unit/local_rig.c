/*
 * The rig of local_rig.h. Owns the place of the test that runs, and a directory on PATH in which this program is called sandboxd.
 */
#include "local_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"

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

void nobody_died(void *arg)
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

void say(const char *why, const struct call *c)
{
	if (c->fault.err)
		print_message("%s: %s\n", why, c->fault.message);
}

int place_setup(void **out)
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

bool no_child_left(void)
{
	int64_t until = call_now_ms() + 30000;
	while (waitpid(-1, NULL, WNOHANG) >= 0) {
		if (call_now_ms() > until)
			return false;
		nanosleep(&(struct timespec){0, 1000000}, NULL); /* between two looks */
	}
	return true;
}

int place_teardown(void **state)
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

void on_died(void *arg)
{
	struct place *p = arg;
	sem_post(&p->died);
}

int start(struct place *p, const char *name, struct driver_instance *out)
{
	fault_clear(&p->call.fault);
	return local_driver.start(p->state, &p->call, name, on_died, p, out);
}

void must_start(struct place *p, const char *name, struct driver_instance *out)
{
	int err = start(p, name, out);
	say("start", &p->call);
	assert_int_equal(err, 0);
}

int ask(const struct driver_instance *inst, const char *what)
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

int sh(const struct place *p, const char *script)
{
	setenv("PLACE", p->dir, 1);
	return system(script);
}

pid_t rig_hold(const char *server, int fd)
{
	pid_t pid = fork();
	if (pid == 0) {
		if (dup2(fd, 1) == 1)
			execl("/proc/self/exe", "holder", "--hold", server, (char *)NULL);
		_exit(1);
	}
	return pid;
}

/* --- the program --- */

static char bin[] = "/tmp/test-local-bin-XXXXXX";

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

int rig_main(int argc, char **argv, int (*tests)(void))
{
	if (argc > 1 && !strcmp(argv[1], "--listen"))
		return stand_in(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "--hold"))
		return hold(argv[2]);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (!usable()) {
		printf("1..1\nok 1 - all # skip bubblewrap cannot make a user namespace here\n");
		return 0;
	}
	pose_as_sandboxd(bin);
	int failed = tests();
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "rm -r %s", bin);
	return system(b.data) || failed;
}
