/*
 * Terminals: the pair of descriptors, its size, and what is typed. Of a command that was started with a size (command.h), whose
 * output is the terminal's. The program leads its session, the terminal is its controlling one.
 */
#ifndef SANDBOXD_PTY_H
#define SANDBOXD_PTY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct command;
struct json_object;

enum { PTY_SIDE_MAX = 10000, PTY_COLUMNS = 80, PTY_ROWS = 24 };

/* {"cols","rows"}, each from 1 to PTY_SIDE_MAX; absent ones are the usual. False: that it is not. */
bool pty_size_of(struct json_object *o, unsigned *columns, unsigned *rows);
/* 0, and ours in *us (not blocking) and the program's in *them. */
int pty_open(unsigned columns, unsigned rows, int *us, int *them);
/* 0, -ENOTTY: it has none, -ESRCH: it has ended. */
int pty_resize(struct command *c, unsigned columns, unsigned rows);
/*
 * Types n bytes, as many as the terminal takes now, without waiting. The count (0: none just now), -ENOTTY or -ESRCH. at: the
 * place of the first in all that was typed, or UINT64_MAX: behind the rest. What was typed already is not typed again (it counts as taken); -ERANGE: bytes
 * before are missing.
 */
ssize_t pty_type(struct command *c, uint64_t at, const void *p, size_t n);
/* How many bytes were typed so far. */
uint64_t pty_typed(struct command *c);
/* A descriptor of its own to poll, or -1. */
int pty_borrow(struct command *c);
/* Waits until it takes more, up to ms. */
void pty_wait(struct command *c, int ms);

#endif
