#!/bin/sh
# Prints a pkg-config file. usage: pkgconfig.sh PREFIX VERSION minim|minim_router [PACKAGES]
cat <<END
prefix=$1
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: $3
Version: $2
Cflags: -I\${includedir}
END
case $3 in
minim)
    cat <<'END'
Description: CPU inference engine for small language models
Libs: -L${libdir} -lminim -lm -pthread
END
    ;;
minim_router)
    cat <<END
Description: decides between a local language model and a remote one
Requires: minim $4
Libs: -L\${libdir} -lminim_router
END
    ;;
esac
