/*
 * Whoever asked, as /proc/TID/status shows it: does a signal wait for it that means "stop"? See op.c for why that is asked. Owns nothing.
 */
#ifndef SBX_CALLER_H
#define SBX_CALLER_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/*
 * Has this thread given up? One that is gone has, and so has one of which nothing can be known. patient: a SIGALRM that it catches does
 * not count. Where there are no descriptors or no memory to look, the answer is no: ask again.
 */
bool caller_gives_up(pid_t tid, bool patient);
/* The same of such a text, for caller_gives_up and tests. */
bool caller_status_gives_up(FILE *status, bool patient);

#endif
