/* links: contrib/common/buf.c sandboxfs/bridge_extras.c sandboxfs/bucket.c sandboxfs/call.c sandboxfs/shown.c */
/* Which buckets a bridge's sandbox is noted to have, when several are asked for at once. The bridge is a function here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bridge_impl.h"

static struct options options;
static struct bridge bridge = {.options = &options, .lock = PTHREAD_MUTEX_INITIALIZER};
static unsigned asked;          /* requests */
static void (*meanwhile)(void); /* once, while a request is on its way */
static int status = 200;

int bridge_ask(const struct bridge *b, struct call *c, const char *method, const char *name,
	const char *route, const char *type, const void *body, size_t size, int64_t timeout_ms,
	struct http_reply *reply)
{
	void (*now)(void) = meanwhile;
	(void)b, (void)c, (void)method, (void)name, (void)route, (void)type, (void)body, (void)size,
		(void)timeout_ms;
	asked++;
	meanwhile = NULL;
	if (now)
		now();
	reply->status = status;
	return 0;
}

int bridge_refused(
	const struct bridge *b, struct call *c, const char *what, int code, const struct buf *body)
{
	(void)b, (void)code, (void)body;
	return call_fault(c, EIO, NULL, "%s", what);
}

static int mount(const char *name, const char *dir)
{
	struct bucket k = {
		.name = (char *)name, .bucket = "data", .dir = (char *)dir, .endpoint = "https://s3"};
	struct call c;
	call_init(&c, 0);
	int err = bridge_bucket_mount(&bridge, &c, "box", &k);
	call_destroy(&c);
	return err;
}

static int unmount(const char *name)
{
	struct call c;
	call_init(&c, 0);
	int err = bridge_bucket_unmount(&bridge, &c, "box", name);
	call_destroy(&c);
	return err;
}

static bool count(const struct bucket *b, const char *dead, void *arg)
{
	(void)b, (void)dead;
	++*(unsigned *)arg;
	return true;
}

static unsigned listed(void)
{
	unsigned n = 0;
	bridge_bucket_each(&bridge, "box", count, &n);
	return n;
}

static void ask_for_the_same(void)
{
	assert_int_equal(listed(), 0);
	assert_int_equal(mount("one", "/one"), -EEXIST);
	assert_int_equal(mount("two", "/one/below"), -EBUSY);
	assert_int_equal(unmount("one"), -ENOENT);
}

static void of_two_at_once_with_one_name_one_is_mounted(void **state)
{
	(void)state;
	asked = 0;
	meanwhile = ask_for_the_same;
	assert_int_equal(mount("one", "/one"), 0);
	assert_int_equal(asked, 1);
	assert_int_equal(listed(), 1);
	assert_int_equal(unmount("one"), 0);
	assert_int_equal(listed(), 0);
}

static void what_was_refused_may_be_asked_for_again(void **state)
{
	(void)state;
	status = 500;
	assert_int_equal(mount("one", "/one"), -EIO);
	assert_int_equal(listed(), 0);
	status = 200;
	assert_int_equal(mount("one", "/one"), 0);
	assert_int_equal(listed(), 1);
	bridge_forget_buckets(&bridge, "box");
	assert_int_equal(listed(), 0);
}

static void let_go(void)
{
	bridge_forget_buckets(&bridge, "box");
}

static void of_a_sandbox_let_go_of_meanwhile_none_is_noted(void **state)
{
	(void)state;
	meanwhile = let_go;
	assert_int_equal(mount("one", "/one"), 0);
	assert_int_equal(listed(), 0);
	assert_null(bridge.buckets);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_two_at_once_with_one_name_one_is_mounted),
		cmocka_unit_test(what_was_refused_may_be_asked_for_again),
		cmocka_unit_test(of_a_sandbox_let_go_of_meanwhile_none_is_noted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
