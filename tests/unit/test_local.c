/* links: tests/unit/local_rig.c sandboxfs/local.c sandboxfs/local_dir.c sandboxfs/run_dir.c sandboxfs/names.c sandboxfs/local_bwrap.c sandboxfs/local_net.c sandboxfs/local_bucket.c sandboxfs/local_bucket_attach.c sandboxfs/local_bucket_child.c sandboxfs/local_s3fs.c sandboxfs/bucket.c sandboxfs/spawner.c sandboxfs/spawner_child.c sandboxfs/call.c sandboxfs/log.c contrib/common/buf.c contrib/common/tree_remove.c */
/*
 * The life of local sandboxes: names, start and end, what is refused. What sandboxd itself does is tested through mounts.
 * Skips where no user namespace can be made.
 */
#include "local_rig.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"

enum { LIMIT_S = 30, POLITE_MS = 1500 /* what a sandbox is given to end by itself */ };

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
	local_driver.stop(p->state, 0, "box", &a);
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
	int64_t took = call_now_ms() - since;
	assert_true(took >= POLITE_MS && took < LIMIT_S * 1000);
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
	until.tv_sec += LIMIT_S;
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
	until.tv_sec += LIMIT_S;
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

static int run_all(void)
{
	const struct CMUnitTest tests[] = {
		T(names),
		T(list),
		T(life),
		T(deaf),
		T(died),
		T(bubblewrap_killed),
		T(early_end),
		T(planted_links),
		T(removal),
		T(closed_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	return rig_main(argc, argv, run_all);
}
