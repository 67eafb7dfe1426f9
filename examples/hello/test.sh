#!/bin/sh
# The tests of hello.sh.
set -eu
[ "$(sh hello.sh)" = "Hello, world!" ]
[ "$(sh hello.sh you)" = "Hello, you!" ]
echo "2 passed"
