/*
 * What the tests of the control tree stand on: a tree over the doubles of ctl_fakes.h, and the kernel's part, one function per
 * call, by paths below ctl/. What is not said to return an error fails the test itself. For the tests' own thread, but for what
 * takes a struct flushing.
 */
#ifndef CTL_RIG_H
#define CTL_RIG_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ctl.h"
#include "ctl_fakes.h"

/* Of the test that runs. The top is that of the sandbox; a test that shows another puts it back. */
extern struct ctl_rig {
	struct fake_world world;
	struct node *top;
} rig;
int rig_setup(void **state);
int rig_teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)

/* --- the kernel's part; pid 0: the test's own --- */

/* 0 and *e with a new reference, or the errno. */
int lookup(struct node *dir, const char *name, struct node_entry *e);
/* A path below ctl/, links followed: new reference. */
struct node *find(const char *path);

struct opened {
	struct node *node; /* a reference */
	struct node_open o;
};
/* 0 and *f, for release; or the errno. */
int try_open(const char *path, int flags, pid_t pid, struct opened *f);
struct opened open_as(const char *path, int flags, pid_t pid);
struct opened open_it(const char *path, int flags);
void release(struct opened *f);

/* 0: all of it was taken; or the errno. */
int write_n(struct opened *f, const void *p, size_t n);
int write_text(struct opened *f, const char *text);
/* The errno of a close. */
int flush_as(struct opened *f, pid_t pid);
/* Opens, writes and releases: 0 or the first errno. Without a flush. */
int write_whole(const char *path, const char *text);

/* Sends a read: the op, which may be parked. An error of the handler is answered as the front does. */
struct op *read_as(struct opened *f, size_t n, off_t off, pid_t pid);
/* Reads and waits for it: new text; an error is told as "error ENAME". */
char *read_text(struct opened *f, size_t n, off_t off);
/* All that is there, or up to an error, which is told in words. New. */
char *read_all(struct opened *f);
/* One read of 64 KiB gives this, of an opening or of one made for it. */
void assert_read(struct opened *f, const char *text);
void assert_file(const char *path, const char *text);
/* All that is there has this within it. */
void assert_file_holds(const char *path, const char *part);

/* --- a flush that waits, on a thread of its own --- */

struct flushing {
	struct opened *f;
	struct op *op;
	pthread_t thread;
	int err;
};
void flush_begin(struct flushing *w, struct opened *f);
/* Waits for it: its errno. */
int flush_end(struct flushing *w);

/* --- who opens --- */

/* A process that is there, or that has ended (by the signal, unless 0) and not been waited for. For bury. */
pid_t child(int signal, bool ended);
void bury(pid_t pid);

#endif
