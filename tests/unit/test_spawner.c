/* links: sandboxfs/spawner.c sandboxfs/spawner_child.c sandboxfs/call.c contrib/common/buf.c */
/* The spawner: children start with what they are given and nothing else, end with it, and are reaped by it alone. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "buf.h"
#include "call.h"
#include "cleanup.h"
#include "spawner.h"

static int setup(void **state)
{
	struct spawner *s;
	if (spawner_new(&s))
		return -1;
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	spawner_free(*state);
	return 0;
}

static struct spawn shell(char **argv, const char *script)
{
	argv[0] = "/bin/sh";
	argv[1] = "-c";
	argv[2] = (char *)script;
	argv[3] = NULL;
	return (struct spawn){
		.path = argv[0], .argv = argv, .collect = true, .cwd = -1, .userns = -1, .netns = -1};
}

static struct child *start(struct spawner *s, const struct spawn *what)
{
	struct child *c = NULL;
	const char *stage = NULL;
	int err = spawner_start(s, what, &c, &stage);
	if (err)
		print_message("%s: %s\n", stage, strerror(-err));
	assert_int_equal(err, 0);
	return c;
}

/* What a script writes to descriptor 2; its status. */
static int said(struct spawner *s, const char *script, struct buf *out)
{
	char *argv[4];
	struct spawn what = shell(argv, script);
	struct child *c = start(s, &what);
	int status;
	assert_int_equal(child_wait(c, call_now_ms() + 10000, &status), 0);
	child_output(c, out);
	child_put(c);
	return status;
}

static void statuses(void **state)
{
	AUTO_BUF out = BUF_INIT;
	assert_int_equal(said(*state, "exit 0", &out), 0);
	assert_int_equal(WEXITSTATUS(said(*state, "exit 7", &out)), 7);
	assert_int_equal(WTERMSIG(said(*state, "kill -9 $$", &out)), SIGKILL);
	assert_int_equal(said(*state, "echo words >&2", &out), 0);
	assert_int_equal(out.size, 6);
	assert_memory_equal(out.data, "words\n", out.size);
}

static void a_clean_start(void **state) /* descriptors, environment, signals, session */
{
	AUTO_BUF out = BUF_INIT;
	AUTO_FD int open_here =
		open("/dev/zero", O_RDONLY); /* not close-on-exec: another room forgot */
	assert_true(open_here >= 0);
	setenv("SECRET", "x", 1);
	signal(SIGPIPE, SIG_IGN);
	said(*state,
		/* only what the shell does by itself: a pipeline or a redirection would open more for a moment */
		"for n in 0 1; do [ /proc/$$/fd/$n -ef /dev/null ] && echo null >&2; done; "
		"[ -p /proc/$$/fd/2 ] && echo pipe >&2; n=3; "
		"while [ $n -lt 1024 ]; do [ -e /proc/$$/fd/$n ] && echo $n >&2; n=$((n + 1)); done; "
		"env >&2; "
		"grep SigBlk /proc/self/status >&2; "
		/* signals 32 and 33 are the C library's own: no program can change what it inherited of them */
		"i=$(awk '/^SigIgn/ { print $2 }' /proc/self/status); echo SigIgn: $((0x$i & "
		"~0x180000000)) >&2; "
		"grep NoNewPrivs /proc/self/status >&2; "
		"test $(cut -d' ' -f6 /proc/$$/stat) = $$ && pwd >&2",
		&out);
	buf_char(&out, 0);
	assert_string_equal(out.data, "null\nnull\npipe\nPWD=/\nSigBlk:\t0000000000000000\n"
								  "SigIgn: 0\nNoNewPrivs:\t1\n/\n");
}

static void numbers(void **state) /* given descriptors arrive, also when they change places */
{
	int a[2], b[2];
	char text[16];
	assert_int_equal(pipe2(a, O_CLOEXEC), 0);
	assert_int_equal(pipe2(b, O_CLOEXEC), 0);
	char *argv[4];
	struct spawn what = shell(argv, "echo three >&3; echo four >&4");
	struct spawn_fd fds[] = {{a[1], 3}, {b[1], 4}};
	what.fds = fds;
	what.nfds = 2;
	struct child *c = start(*state, &what);
	close(a[1]);
	close(b[1]);
	assert_int_equal(read(a[0], text, sizeof text), 6);
	assert_memory_equal(text, "three\n", 6);
	assert_int_equal(read(b[0], text, sizeof text), 5);
	assert_int_equal(child_wait(c, -1, NULL), 0);
	child_put(c);
	close(a[0]);
	close(b[0]);
}

static void what_cannot_start(void **state)
{
	struct child *c;
	const char *stage;
	char *argv[4];
	struct spawn what = shell(argv, "");
	what.path = "/nonexistent/program";
	assert_int_equal(spawner_start(*state, &what, &c, &stage), -ENOENT);
	assert_string_equal(stage, "execve");
	AUTO_FD int not_a_namespace = open("/dev/null", O_RDONLY | O_CLOEXEC);
	what = shell(argv, "");
	what.netns = not_a_namespace;
	assert_int_equal(spawner_start(*state, &what, &c, &stage), -EINVAL);
	assert_string_equal(stage, "namespaces");
}

static void output_is_bounded(void **state) /* the newest is kept, and the child never blocks */
{
	AUTO_BUF out = BUF_INIT;
	assert_int_equal(said(*state, "seq 200000 >&2", &out), 0);
	assert_true(out.size <= 4096);
	assert_memory_equal(out.data + out.size - 7, "200000\n", 7);
}

static void deadline(void **state)
{
	char *argv[4];
	struct spawn what = shell(argv, "exec sleep 1000");
	struct child *c = start(*state, &what);
	int status;
	assert_int_equal(child_wait(c, call_now_ms() + 20, NULL), -ETIMEDOUT);
	assert_false(child_ended(c));
	child_signal(c, SIGTERM);
	assert_int_equal(child_wait(c, call_now_ms() + 10000, &status), 0);
	assert_int_equal(WTERMSIG(status), SIGTERM);
	assert_true(child_ended(c));
	child_signal(c, SIGTERM); /* nobody is hit */
	child_put(c);
}

static void strangers(void **state) /* another's child is not reaped here */
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(9);
	AUTO_BUF out = BUF_INIT;
	said(*state, "exit 0", &out);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 9);
}

static void count(void *arg)
{
	__atomic_add_fetch((int *)arg, 1, __ATOMIC_SEQ_CST);
}

static void *many(void *arg)
{
	static int told;
	for (int i = 0; i < 20; i++) {
		char *argv[4];
		struct spawn what = shell(argv, "exit 3");
		what.on_exit = count;
		what.arg = &told;
		struct child *c;
		int status;
		if (spawner_start(arg, &what, &c, NULL))
			return "start";
		if (child_wait(c, call_now_ms() + 20000, &status) || WEXITSTATUS(status) != 3)
			return "status";
		child_put(c);
	}
	return __atomic_load_n(&told, __ATOMIC_SEQ_CST) >= 20 ? NULL : "on_exit";
}

static void from_many_threads(void **state)
{
	pthread_t t[6];
	for (int i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&t[i], NULL, many, *state), 0);
	for (int i = 0; i < 6; i++) {
		void *wrong;
		pthread_join(t[i], &wrong);
		assert_null(wrong);
	}
}

static void the_end(
	void **state) /* spawner_free kills what is left; a child outlives it as a record */
{
	(void)state;
	struct spawner *s;
	assert_int_equal(spawner_new(&s), 0);
	char *argv[4];
	struct spawn what = shell(argv, "trap '' TERM INT; exec sleep 1000");
	struct child *c = start(s, &what);
	spawner_free(s);
	int status;
	assert_int_equal(child_wait(c, 0, &status), 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	child_put(c);
}

/* A body: which descriptors above 2 it has, as bits from 3 on; arg is a descriptor of ours that it must not have. */
static int count_descriptors(void *arg)
{
	int bits = 0;
	for (int fd = 3; fd < 9; fd++)
		bits |= (fcntl(fd, F_GETFD) >= 0) << (fd - 3);
	return bits | (fcntl(*(int *)arg, F_GETFD) >= 0) << 6;
}

static void bodies(void **state)
{
	AUTO_FD int kept = open("/dev/null", O_RDWR | O_CLOEXEC);
	AUTO_FD int ours = fcntl(kept, F_DUPFD, 100);
	const struct spawn_fd fds[] = {{kept, 3}, {kept, 4}};
	struct spawn what = {.body = count_descriptors,
		.body_arg = &ours,
		.fds = fds,
		.nfds = 2,
		.cwd = -1,
		.userns = -1,
		.netns = -1};
	int status;
	struct child *c = start(*state, &what), *again = child_get(c);
	child_put(c);
	assert_int_equal(child_wait(again, call_now_ms() + 10000, &status), 0);
	child_put(again);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(statuses),
		T(bodies),
		T(a_clean_start),
		T(numbers),
		T(what_cannot_start),
		T(output_is_bounded),
		T(deadline),
		T(strangers),
		T(from_many_threads),
		T(the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
