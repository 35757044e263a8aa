/*
 * What the tests of local sandboxes stand on: the driver on a directory of its own, with the real bubblewrap and a stand-in for
 * sandboxd: this very program, which inside a sandbox answers any connection by one line.
 */
#ifndef LOCAL_RIG_H
#define LOCAL_RIG_H

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "driver.h"

/*
 * What main returns. Started as a sandboxd or as a holder (rig_hold) the program is that; else it is found as sandboxd while tests()
 * runs (the number of failures), unless, which is said, no user namespace can be made here.
 */
int rig_main(int argc, char **argv, int (*tests)(void));

/* --- each test has a place of its own --- */

struct place {
	char dir[64];
	char server[96];
	struct options options;
	void *state;
	struct call call;
	sem_t died;
};

/* *state: a new struct place, whose data directory is PLACE/data. */
int place_setup(void **state);
/* Fails the test if it left a process or a socket. */
int place_teardown(void **state);
#define T(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)

/* 0, or the errno with a fault in p->call. Its death is counted in p->died. */
int start(struct place *p, const char *name, struct driver_instance *out);
/* The same, or the test fails. */
void must_start(struct place *p, const char *name, struct driver_instance *out);
/* Prints the fault of the call, if there is one. */
void say(const char *why, const struct call *c);
/* How many bytes it answered, or a negative errno. What it knows: "WRITE " makes /workspace/made, "EXIT" ends it. */
int ask(const struct driver_instance *inst, const char *what);
/* What system() gives for a shell command, with the place as $PLACE. */
int sh(const struct place *p, const char *script);
/* What lost its parent is ours (rig_main has seen to it): all of it ends, within 30 s. */
bool no_child_left(void);
/* Another program with a mount of its own of that server: starts `box`, writes its socket's path with its NUL to fd, and stays. */
pid_t rig_hold(const char *server, int fd);

/* For local_driver.start: counts in the struct place arg; and nothing. */
void on_died(void *place);
void nobody_died(void *arg);

#endif
