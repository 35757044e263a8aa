/* links: tests/unit/local_rig.c sandboxfs/local.c sandboxfs/local_dir.c sandboxfs/run_dir.c sandboxfs/names.c sandboxfs/local_bwrap.c sandboxfs/local_net.c sandboxfs/local_bucket.c sandboxfs/local_bucket_attach.c sandboxfs/local_bucket_child.c sandboxfs/local_s3fs.c sandboxfs/bucket.c sandboxfs/spawner.c sandboxfs/spawner_child.c sandboxfs/call.c sandboxfs/log.c contrib/common/buf.c contrib/common/tree_remove.c */
/*
 * Local sandboxes and what comes between: the program is killed, a start is cancelled, others start and remove the same.
 * Skips where no user namespace can be made.
 */
#include "local_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"

/* kill -9 of the program: no process, no lock, no socket directory stops or outlives the next one. */
static void killed(void **state)
{
	struct place *p = *state;
	int tell[2];
	assert_int_equal(pipe(tell), 0);
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	pid_t pid = rig_hold(p->server, tell[1]);
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
	AUTO_FD int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_int_equal(local_driver.create(p->state, NULL, "box"), 0);
	for (long us = 0; us < 40000; us += 2000 + random() % 1000) {
		pid_t pid = rig_hold(p->server, null);
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
	int64_t fastest = INT64_MAX;
	for (int i = 0; i < 10; i++) {
		struct driver_instance a;
		assert_int_equal(local_driver.create(p->state, NULL, "x"), 0);
		must_start(p, "x", &a);
		assert_int_equal(sh(p, "test ! -e $PLACE/data/x/workspace/made"), 0);
		assert_true(ask(&a, "WRITE ") > 0);
		int64_t since = call_now_ms();
		local_driver.stop(p->state, 0, "x", &a);
		if (call_now_ms() - since < fastest)
			fastest = call_now_ms() - since;
		assert_int_equal(local_driver.destroy(p->state, NULL, "x"), 0);
	}
	assert_true(fastest < 1500); /* so long is waited for one that does not hear */
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

static int run_all(void)
{
	const struct CMUnitTest tests[] = {
		T(killed),
		T(killed_while_starting),
		T(cancelled),
		T(again_and_again),
		T(parallel),
		T(two_mounts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	return rig_main(argc, argv, run_all);
}
